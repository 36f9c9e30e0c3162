/*
 * The estimate of pi that the table of `vmtask demo` is made of: the first terms of the Leibniz series in single
 * precision, compiled in many ways. One source, several answers.
 *
 *     leibniz [TERMS [SECONDS]]
 *
 * prints the value, its error and its bits, as
 *
 *     pi 3.140592575 error 0.001000079 hex 0x1.91fefp+1
 *
 * With SECONDS it computes the same again and again for that long, so that there is time to pause a virtual machine
 * in mid-run, keeps the file `progress` up to date meanwhile, and checks that every answer is the first one.
 */
#define _POSIX_C_SOURCE 200809L   /* clock_gettime, with -std=c99 too */
#define __USE_MINGW_ANSI_STDIO 1 /* MinGW: a printf that knows %a */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
#ifdef _WIN32
    return (double)clock() / CLOCKS_PER_SEC; /* there it is time on the wall */
#else
    struct timespec t;

    return clock_gettime(CLOCK_MONOTONIC, &t) == 0 ? t.tv_sec + t.tv_nsec / 1e9 : 0;
#endif
}

/* Ten times a second, and by rename: whoever reads the file sees a whole number. */
static void progress(double done, double passed)
{
    static double next = 0;
    FILE *file;

    if (passed < next && done < 1)
        return;
    next = passed + 0.1;
    file = fopen("progress.new", "w");
    if (file == NULL)
        return;
    fprintf(file, "%.3f\n", done);
    if (fclose(file) == 0)
        rename("progress.new", "progress");
}

int main(int argc, char **argv)
{
    const int terms = argc > 1 ? atoi(argv[1]) : 1000;
    const double seconds = argc > 2 ? atof(argv[2]) : 0, start = now();
    char first[128] = "", line[128];
    double passed;

    do {
        float sum = 0.0f;
        int k;

        /*
         * Where the answers part: on an x87 the sum is rounded to 32 bits in each turn, to survive the call of powf,
         * but after the last addition it is still in an 80-bit register when snprintf gets it. Any call between the
         * loop and snprintf would have the compiler round that one as well, so there is none.
         */
        for (k = 0; k < terms; k++)
            sum += 4.0f * powf(-1.0f, k) / (2 * k + 1);
        snprintf(line, sizeof line, "pi %.9f error %.9f hex %a", sum, 3.14159265358979323846 - sum, sum);

        if (*first == '\0')
            strcpy(first, line);
        if (strcmp(first, line) != 0) {
            fprintf(stderr, "leibniz: two answers from one program: %s, then %s\n", first, line);
            return 1;
        }
        passed = now() - start;
        if (seconds > 0)
            progress(passed < seconds ? passed / seconds : 1, passed);
    } while (passed < seconds);

    return puts(line) < 0 || fflush(stdout) != 0;
}

/* Behaves in one way or another: behave WAY [ARGUMENT]
 *
 * exit CODE            ends with it, having said so on both streams
 * signal NUMBER        ends by it
 * sleep SECONDS        does nothing
 * half FILE            begins an output, changes the directory's other files, and dies before it is complete
 * write FILE MB        writes so much, of a pattern that depends on the place
 * fill-disk FILE       writes until there is no more room, says how much that was, and ends with 0
 * fill-memory          takes memory until it is killed
 * link FILE TARGET     leaves a symbolic link as its output
 * reboot | poweroff    ends the machine
 * hang                 takes the only processor and never gives it back
 * kill-agent           kills the guest agent, again and again for a second, then ends with 0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static void say(const char *text)
{
    printf("out: %s\n", text);
    fprintf(stderr, "err: %s\n", text);
    fflush(NULL);
}

static void nap(double seconds)
{
    struct timespec left = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };
    while (nanosleep(&left, &left) != 0)
        ;
}

static void fill(char *block, size_t size, unsigned long number)
{
    for (size_t at = 0; at + sizeof number <= size; at += sizeof number) {
        unsigned long word = number * size + at;
        memcpy(block + at, &word, sizeof word);
    }
}

int main(int argc, char **argv)
{
    static char block[1 << 20];
    const char *way = argc > 1 ? argv[1] : "", *name = argc > 2 ? argv[2] : "";
    say(way);
    if (is(way, "exit"))
        return atoi(name);
    if (is(way, "signal")) {
        raise(atoi(name));
        return 98;
    }
    if (is(way, "sleep")) {
        nap(atof(name));
        return 0;
    }
    if (is(way, "half")) {
        int file = open(name, O_CREAT | O_WRONLY, 0644);
        if (file < 0 || write(file, "the first half, ", 16) != 16)
            return 4;
        raise(SIGKILL);
    }
    if (is(way, "write")) {
        FILE *file = fopen(name, "w");
        if (!file)
            return 4;
        for (unsigned long number = 0; number < strtoul(argv[3], NULL, 10); number++) {
            fill(block, sizeof block, number);
            if (fwrite(block, sizeof block, 1, file) != 1)
                return 5;
        }
        return fclose(file) ? 5 : 0;
    }
    if (is(way, "fill-disk")) {
        int file = open("ballast", O_CREAT | O_WRONLY | O_TRUNC, 0644);
        unsigned long total = 0;
        for (long got; (got = write(file, block, sizeof block)) > 0;)
            total += got;
        close(file);
        unlink("ballast");
        FILE *out = fopen(name, "w");
        if (!out)
            return 4;
        fprintf(out, "filled %s\n", total > sizeof block ? "it" : "nothing");
        return fclose(out) ? 5 : 0;
    }
    if (is(way, "fill-memory"))
        for (;;) {
            char *more = malloc(sizeof block);
            if (more)
                memset(more, 1, sizeof block);
        }
    if (is(way, "link"))
        return symlink(argv[3], name) ? 4 : 0;
    if (is(way, "reboot") || is(way, "poweroff")) {
        sync();
        reboot(is(way, "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
        return 97;
    }
    if (is(way, "hang")) {
        /* Nothing else, not even the kernel's own threads, comes before a real-time program without a limit. */
        struct sched_param first = { .sched_priority = 99 };
        FILE *limit = fopen("/proc/sys/kernel/sched_rt_runtime_us", "w");
        if (!limit || fputs("-1", limit) == EOF || fclose(limit) != 0 || sched_setscheduler(0, SCHED_FIFO, &first) != 0)
            return 96;
        for (volatile int on = 1; on;)
            ;
    }
    if (is(way, "kill-agent")) {
        for (int times = 0; times < 10; times++) {
            if (system("killall -9 qemu-ga") == -1)
                return 95;
            nap(0.1);
        }
        return 0;
    }
    return 2;
}

/* A computation that checks itself: counter INPUT STEPS STEP_MS RESULT STEPLOG [PROGRESS]
 *
 * The state after each step depends on the input's bytes and on every step before it. A second copy of all states is
 * kept and compared at every step, and the whole chain is computed again at the end: a page of an older checkpoint, a
 * step lost or made twice, an input cut short, each ends in exit code 99 or another result.
 *
 * RESULT depends on INPUT and STEPS alone. STEPLOG has a line `STEP MILLISECONDS` for each step, by the guest's clock,
 * which the host sets after every restore: where a checkpoint was restored the log shows what was done again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t mix(uint64_t state, uint64_t with)
{
    state ^= with + 0x9e3779b97f4a7c15u + (state << 6) + (state >> 2);
    state ^= state >> 30, state *= 0xbf58476d1ce4e5b9u;
    state ^= state >> 27, state *= 0x94d049bb133111ebu;
    return state ^ (state >> 31);
}

static unsigned char *input;
static size_t input_size;

static uint64_t step_from(uint64_t state, unsigned step)
{
    return mix(mix(state, step), input_size ? input[(state ^ step) % input_size] : 256u);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void nap(unsigned ms)
{
    struct timespec left = { ms / 1000, ms % 1000 * 1000000L };
    while (nanosleep(&left, &left) != 0)
        ;
}

static void corrupt(const char *what, unsigned step)
{
    fprintf(stderr, "step %u: %s\n", step, what);
    exit(99);
}

static void tell(const char *name, unsigned done, unsigned steps)
{
    char part[256];
    FILE *file;
    snprintf(part, sizeof part, "%s.part", name);
    if (!(file = fopen(part, "w")))
        return;
    fprintf(file, "%.4f\n", (double)done / steps);
    fclose(file);
    rename(part, name);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    unsigned steps = strtoul(argv[2], NULL, 10), step_ms = strtoul(argv[3], NULL, 10);
    FILE *file = fopen(argv[1], "rb");
    if (!file) {
        perror(argv[1]);
        return 3;
    }
    input = malloc(1 << 24);
    input_size = fread(input, 1, 1 << 24, file);
    fclose(file);

    uint64_t *states = calloc(steps + 1, sizeof *states), *shadow = calloc(steps + 1, sizeof *shadow);
    long long *times = calloc(steps + 1, sizeof *times);
    for (unsigned step = 0; step < steps; step++) {
        if (memcmp(states, shadow, (step + 1) * sizeof *states) != 0)
            corrupt("the two copies differ", step);
        states[step + 1] = step_from(states[step], step);
        shadow[step + 1] = step_from(shadow[step], step);
        times[step] = now_ms();
        if (argc > 6)
            tell(argv[6], step + 1, steps);
        if (step_ms)
            nap(step_ms);
    }
    uint64_t again = 0;
    for (unsigned step = 0; step < steps; step++)
        if ((again = step_from(again, step)) != states[step + 1])
            corrupt("another state than computed before", step);

    if (!(file = fopen(argv[4], "w")))
        return 4;
    fprintf(file, "steps %u\ninput %zu bytes\n", steps, input_size);
    for (unsigned step = 0; step <= steps; step += 1 + steps / 64)
        fprintf(file, "%u %016llx\n", step, (unsigned long long)states[step]);
    fprintf(file, "result %016llx\n", (unsigned long long)again);
    if (fclose(file) != 0 || !(file = fopen(argv[5], "w")))
        return 4;
    for (unsigned step = 0; step < steps; step++)
        fprintf(file, "%u %lld\n", step, times[step]);
    return fclose(file) != 0 ? 4 : 0;
}

/* Shows a guest's pauses to the host: heartbeat SECONDS DIRTY_MB PORT
 *
 * Writes one byte to PORT about once a millisecond, and between two of them changes pages of DIRTY_MB megabytes, round
 * and round. A guest cannot see its own pauses, since its clock stands still with it; the host, reading PORT, can.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long long end = now_us() + atoll(argv[1]) * 1000000LL, beat = now_us();
    size_t size = strtoul(argv[2], NULL, 10) << 20, at = 0;
    volatile char *pages = size ? malloc(size) : NULL;
    int port = open(argv[3], O_RDWR | O_NONBLOCK);
    if (port < 0)
        return 3;
    while (now_us() < end) {
        if (size) {
            for (int pages_left = 8; pages_left > 0; pages_left--, at = (at + 4096) % size)
                pages[at]++;
        } else {
            struct timespec nap = { 0, 500000 };
            nanosleep(&nap, NULL);
        }
        if (now_us() - beat >= 1000) {
            beat = now_us();
            /* Nobody reads, or the port is full: the next one will do. */
            if (write(port, ".", 1) < 0 && errno != EAGAIN)
                return 4;
        }
    }
    return 0;
}

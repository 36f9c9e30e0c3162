/* The calls of the benchmark as a plain C client makes them: client VMX COUNT CALL
 *
 * CALL: property (Vix_GetProperties), variable (a job: VixVM_ReadVariable), file (a job in the guest:
 * VixVM_FileExistsInGuest). Prints the nanoseconds for one call, taken over COUNT. Waits as VIX's documentation shows it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int VixHandle;
typedef uint64_t VixError;
typedef char Bool;
typedef void VixEventProc(VixHandle job, int eventType, VixHandle moreEventInfo, void *clientData);

VixHandle VixHost_Connect(int, int, const char *, int, const char *, const char *, int, VixHandle, VixEventProc *, void *);
void VixHost_Disconnect(VixHandle);
VixHandle VixVM_Open(VixHandle, const char *, VixEventProc *, void *);
VixHandle VixVM_PowerOn(VixHandle, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_PowerOff(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_WaitForToolsInGuest(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_LoginInGuest(VixHandle, const char *, const char *, int, VixEventProc *, void *);
VixHandle VixVM_ReadVariable(VixHandle, int, const char *, int, VixEventProc *, void *);
VixHandle VixVM_FileExistsInGuest(VixHandle, const char *, VixEventProc *, void *);
VixError Vix_GetProperties(VixHandle, int, ...);
VixError VixJob_Wait(VixHandle, int, ...);
void Vix_ReleaseHandle(VixHandle);
void Vix_FreeBuffer(void *);

static void must(VixError error, const char *what)
{
    if ((error & 0xffff) != 0) {
        fprintf(stderr, "%s: VIX error %u\n", what, (unsigned)(error & 0xffff));
        exit(1);
    }
}

static void finish(VixHandle job, const char *what)
{
    must(VixJob_Wait(job, 0), what);
    Vix_ReleaseHandle(job);
}

static VixHandle obtain(VixHandle job, const char *what)
{
    VixHandle handle = 0;
    must(VixJob_Wait(job, 3010, &handle, 0), what);
    Vix_ReleaseHandle(job);
    return handle;
}

static void one(VixHandle host, VixHandle vm, const char *call)
{
    VixHandle job;
    if (strcmp(call, "property") == 0) {
        int version = 0;
        must(Vix_GetProperties(host, 51, &version, 0), "a property");
        return;
    }
    if (strcmp(call, "variable") == 0) {
        char *text = NULL;
        job = VixVM_ReadVariable(vm, 1, "benchmark", 0, NULL, NULL);
        must(VixJob_Wait(job, 3056, &text, 0), "a variable");
        Vix_FreeBuffer(text);
    } else {
        Bool there = 0;
        job = VixVM_FileExistsInGuest(vm, "/bin/true", NULL, NULL);
        must(VixJob_Wait(job, 3011, &there, 0), "a file");
        if (!there)
            exit(2);
    }
    Vix_ReleaseHandle(job);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    unsigned long count = strtoul(argv[2], NULL, 10);
    VixHandle host = obtain(VixHost_Connect(-1, 3, NULL, 0, NULL, NULL, 0, 0, NULL, NULL), "connect");
    VixHandle vm = obtain(VixVM_Open(host, argv[1], NULL, NULL), "open");
    finish(VixVM_WaitForToolsInGuest(vm, 60, NULL, NULL), "tools");
    finish(VixVM_LoginInGuest(vm, "user", "secret", 0, NULL, NULL), "login");
    struct timespec from, to;
    for (unsigned long i = 0; i < count / 10; i++)
        one(host, vm, argv[3]);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (unsigned long i = 0; i < count; i++)
        one(host, vm, argv[3]);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.1f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / count);
    Vix_ReleaseHandle(vm);
    VixHost_Disconnect(host);
    return 0;
}

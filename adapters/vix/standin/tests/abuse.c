/*
 * Uses the library as badly as a client can without being the one to blame for the crash: wrong handles, dead handles,
 * no pointers, many threads, disconnecting at the worst time.
 *
 *   abuse every LIBRARY VMX NAME...     calls every function with every kind of handle, and nothing else
 *   abuse threads LIBRARY VMX           many threads, one VM
 *   abuse unload LIBRARY VMX            unloads the library while a job is under way
 *   abuse hang LIBRARY VMX              a job that hangs, ended by a disconnect from its own callback's thread and others
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int VixHandle;
typedef uint64_t VixError;

static void *library;

static void *
symbol(const char *name)
{
   void *found = dlsym(library, name);
   if (found == 0) {
      fprintf(stderr, "%s\n", dlerror());
      exit(1);
   }
   return found;
}

/* More arguments than any of them takes: on this platform the caller cleans up, so they do no harm. */
typedef uint64_t Any(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                     uint64_t);

static VixError (*job_wait)(VixHandle, int, ...);
static void (*release_handle)(VixHandle);
static int (*handle_type)(VixHandle);
static VixError (*get_properties)(VixHandle, int, ...);
static void (*disconnect)(VixHandle);
static void (*free_buffer)(void *);
static Any *any_connect, *any_open, *any_on, *any_off, *any_snapshot, *any_alloc, *any_tools, *any_named;

static void
must(const char *what, int truth)
{
   if (!truth) {
      fprintf(stderr, "it does not hold that %s\n", what);
      exit(1);
   }
}

static VixHandle
result_of(uint64_t job)
{
   VixHandle handle = 0;
   job_wait((VixHandle)job, 3010, &handle, 0);
   release_handle((VixHandle)job);
   return handle;
}

static VixHandle
connect_host(void)
{
   VixHandle host = result_of(any_connect(-1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0));
   must("a host comes back", host != 0);
   return host;
}

static VixHandle
open_vm(VixHandle host, const char *vmx)
{
   return result_of(any_open(host, (uint64_t)(uintptr_t)vmx, 0, 0, 0, 0, 0, 0, 0, 0, 0));
}

static void
finish(uint64_t job)
{
   job_wait((VixHandle)job, 0);
   release_handle((VixHandle)job);
}

static void
every(const char *vmx, char **names)
{
   for (; *names != 0; names++) {
      Any *function = symbol(*names);
      int kind;
      for (kind = 0; kind < 8; kind++) {
         VixHandle host = connect_host(), vm = open_vm(host, vmx), handles[8], snapshot, list = 0;
         uint64_t job, result;
         finish(any_on(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
         /* Only where it is used: snapshots stay. */
         snapshot = kind != 6 ? 0 : result_of(any_snapshot(vm, (uint64_t)(uintptr_t) "name", 0, 0, 0, 0, 0, 0, 0, 0, 0));
         any_alloc(host, (uint64_t)(uintptr_t)&list, 0, 0, 0, 0, 0, 0, 0, 0, 0);
         job = any_off(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
         job_wait((VixHandle)job, 0);
         handles[0] = 0;
         handles[1] = -1;
         handles[2] = 0x7FFFFFFF;
         handles[3] = host;
         handles[4] = vm;
         handles[5] = (VixHandle)job;
         handles[6] = snapshot;
         handles[7] = list;
         must("everything needed is there", vm != 0 && list != 0 && (kind != 6 || snapshot != 0));
         if (kind == 4 && strcmp(*names, "VixVM_Delete") == 0) {
            disconnect(host);
            continue;
         }
         result = function((uint64_t)(int64_t)handles[kind], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
         if (handle_type((VixHandle)result) == 6 && (VixHandle)result != (VixHandle)job) {
            finish(result);
         }
         disconnect(host);
         /* All of them are dead now; using and releasing them must do nothing. */
         for (result = 0; result < 8; result++) {
            VixHandle out;
            must("a dead handle has no properties", get_properties(handles[result], 129, &out, 0) != 0);
            release_handle(handles[result]);
            release_handle(handles[result]);
         }
      }
   }
   free_buffer(0);
   free_buffer(&library);
   printf("survived\n");
}

struct client {
   const char *vmx;
   int number;
   int completed;
};

static void
on_event(VixHandle job, int event, VixHandle more, void *data)
{
   struct client *client = data;
   (void)job;
   (void)more;
   if (event == 2) {
      __atomic_add_fetch(&client->completed, 1, __ATOMIC_RELEASE);
   }
}

enum { THREADS = 12, ROUNDS = 15 };

static void *
one_client(void *data)
{
   struct client *client = data;
   int round, state, expected = 0;
   for (round = 0; round < ROUNDS; round++) {
      VixHandle host = connect_host(), vm = open_vm(host, client->vmx);
      char *name = 0;
      uint64_t job;
      must("a VM comes back", vm != 0);
      /* Released before it can have completed: it goes on, and its callback is called. */
      job = any_on(vm, 0, 0, (uint64_t)(uintptr_t)on_event, (uint64_t)(uintptr_t)client, 0, 0, 0, 0, 0, 0);
      release_handle((VixHandle)job);
      expected++;
      must("properties can be read at any time", get_properties(vm, 129, &state, 108, &name, 0) == 0);
      free_buffer(name);
      finish(any_tools(vm, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0));
      finish(any_off(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
      while (__atomic_load_n(&client->completed, __ATOMIC_ACQUIRE) < expected) {
         usleep(100);
      }
      release_handle(vm);
      disconnect(host);
   }
   return 0;
}

static void
threads(const char *vmx)
{
   pthread_t threads[THREADS];
   struct client clients[THREADS];
   int i;
   for (i = 0; i < THREADS; i++) {
      clients[i] = (struct client){ vmx, i, 0 };
      must("a thread starts", pthread_create(&threads[i], 0, one_client, &clients[i]) == 0);
   }
   for (i = 0; i < THREADS; i++) {
      pthread_join(threads[i], 0);
      must("each callback fired once", clients[i].completed == ROUNDS);
   }
   printf("survived\n");
}

static VixHandle hanging_host;

static void *
wait_for(void *job)
{
   return (void *)(uintptr_t)job_wait((VixHandle)(intptr_t)job, 0);
}

static void
disconnect_here(VixHandle job, int event, VixHandle more, void *data)
{
   (void)job;
   (void)more;
   if (event == 2) {
      disconnect(hanging_host);
      __atomic_store_n((int *)data, 1, __ATOMIC_RELEASE);
   }
}

/* VixVM_PowerOn hangs: the control file says so. */
static void
hang(const char *vmx)
{
   VixHandle vm, unused = 0;
   pthread_t waiter;
   void *error = 0;
   int done = 0, i;
   uint64_t job;
   hanging_host = connect_host();
   vm = open_vm(hanging_host, vmx);
   job = any_on(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
   must("a thread starts", pthread_create(&waiter, 0, wait_for, (void *)(intptr_t)job) == 0);
   /* Jobs of another kind complete, and their callbacks end the connection, all at once, under the one that hangs. */
   release_handle((VixHandle)any_named(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
   for (i = 0; i < 4; i++) {
      any_off(vm, 0, (uint64_t)(uintptr_t)disconnect_here, (uint64_t)(uintptr_t)&done, 0, 0, 0, 0, 0, 0, 0);
   }
   pthread_join(waiter, &error);
   /* Either the wait was ended (26), or it began after the end (1000). */
   must("who waits for ever is let go", (uintptr_t)error == 26 || (uintptr_t)error == 1000);
   while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
      usleep(100);
   }
   must("the VM is gone with its host", get_properties(vm, 129, &unused, 0) == 1000);
   printf("survived\n");
}

/* VixVM_PowerOn takes its time: it is on its way when the library is unloaded. */
static void
unload(const char *vmx)
{
   VixHandle host = connect_host(), vm = open_vm(host, vmx);
   any_on(vm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
   must("the library can be unloaded", dlclose(library) == 0);
   usleep(200000);
   library = 0;
   printf("survived\n");
}

int
main(int argc, char **argument)
{
   must("there are arguments", argc >= 4);
   library = dlopen(argument[2], RTLD_NOW | RTLD_LOCAL);
   must("the library loads", library != 0);
   job_wait = symbol("VixJob_Wait");
   release_handle = symbol("Vix_ReleaseHandle");
   handle_type = symbol("Vix_GetHandleType");
   get_properties = symbol("Vix_GetProperties");
   disconnect = symbol("VixHost_Disconnect");
   free_buffer = symbol("Vix_FreeBuffer");
   any_connect = symbol("VixHost_Connect");
   any_open = symbol("VixVM_Open");
   any_on = symbol("VixVM_PowerOn");
   any_off = symbol("VixVM_PowerOff");
   any_snapshot = symbol("VixVM_CreateSnapshot");
   any_alloc = symbol("VixPropertyList_AllocPropertyList");
   any_tools = symbol("VixVM_WaitForToolsInGuest");
   any_named = symbol("VixVM_GetNumRootSnapshots");
   if (strcmp(argument[1], "every") == 0) {
      every(argument[3], argument + 4);
   } else if (strcmp(argument[1], "threads") == 0) {
      threads(argument[3]);
   } else if (strcmp(argument[1], "unload") == 0) {
      unload(argument[3]);
   } else {
      hang(argument[3]);
   }
   return 0;
}

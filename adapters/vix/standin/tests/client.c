/*
 * A program that uses VIX as its documentation says, written without the stand-in's or anybody's header: the prototypes
 * below are typed in from the documentation. It passes through a VM's life and leaves nothing behind.
 *
 *   client PROVIDER HOST USER PASSWORD VMX CLONE DIRECTORY GUEST_USER GUEST_PASSWORD PROGRAM STATUS
 *
 * HOST, USER, PASSWORD and CLONE may be "-" for none. PROGRAM is a file that the guest can execute and that ends with
 * STATUS. It prints a line for each step, and ends with 0 only if every step went as it must.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int VixHandle;
typedef uint64_t VixError;
typedef char Bool;
typedef void VixEventProc(VixHandle job, int eventType, VixHandle moreEventInfo, void *clientData);

VixHandle VixHost_Connect(int apiVersion, int hostType, const char *hostName, int hostPort, const char *userName,
                          const char *password, int options, VixHandle propertyList, VixEventProc *callbackProc,
                          void *clientData);
void VixHost_Disconnect(VixHandle host);
VixHandle VixHost_RegisterVM(VixHandle host, const char *vmxFilePath, VixEventProc *callbackProc, void *clientData);
VixHandle VixHost_UnregisterVM(VixHandle host, const char *vmxFilePath, VixEventProc *callbackProc, void *clientData);
VixHandle VixHost_FindItems(VixHandle host, int searchType, VixHandle searchCriteria, int32_t timeout,
                            VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Open(VixHandle host, const char *vmxFilePath, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_PowerOn(VixHandle vm, int options, VixHandle propertyList, VixEventProc *callbackProc,
                        void *clientData);
VixHandle VixVM_PowerOff(VixHandle vm, int options, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Pause(VixHandle vm, int options, VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Unpause(VixHandle vm, int options, VixHandle propertyList, VixEventProc *callbackProc,
                        void *clientData);
VixHandle VixVM_WaitForToolsInGuest(VixHandle vm, int timeoutInSeconds, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_LoginInGuest(VixHandle vm, const char *userName, const char *password, int options,
                             VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_LogoutFromGuest(VixHandle vm, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CreateDirectoryInGuest(VixHandle vm, const char *pathName, VixHandle propertyList,
                                       VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_DirectoryExistsInGuest(VixHandle vm, const char *pathName, VixEventProc *callbackProc,
                                       void *clientData);
VixHandle VixVM_FileExistsInGuest(VixHandle vm, const char *pathName, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_ListDirectoryInGuest(VixHandle vm, const char *pathName, int options, VixEventProc *callbackProc,
                                     void *clientData);
VixHandle VixVM_DeleteFileInGuest(VixHandle vm, const char *pathName, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CopyFileFromHostToGuest(VixHandle vm, const char *hostPathName, const char *guestPathName, int options,
                                        VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_CopyFileFromGuestToHost(VixHandle vm, const char *guestPathName, const char *hostPathName, int options,
                                        VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_RunProgramInGuest(VixHandle vm, const char *guestProgramName, const char *commandLineArgs, int options,
                                  VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixError VixVM_GetNumRootSnapshots(VixHandle vm, int *result);
VixError VixVM_GetRootSnapshot(VixHandle vm, int index, VixHandle *snapshot);
VixError VixVM_GetNamedSnapshot(VixHandle vm, const char *name, VixHandle *snapshot);
VixHandle VixVM_CreateSnapshot(VixHandle vm, const char *name, const char *description, int options,
                               VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_RevertToSnapshot(VixHandle vm, VixHandle snapshot, int options, VixHandle propertyList,
                                 VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_RemoveSnapshot(VixHandle vm, VixHandle snapshot, int options, VixEventProc *callbackProc,
                               void *clientData);
VixHandle VixVM_Clone(VixHandle vm, VixHandle snapshot, int cloneType, const char *destConfigPathName, int options,
                      VixHandle propertyList, VixEventProc *callbackProc, void *clientData);
VixHandle VixVM_Delete(VixHandle vm, int deleteOptions, VixEventProc *callbackProc, void *clientData);
VixError VixSnapshot_GetNumChildren(VixHandle parent, int *numChildSnapshots);
VixError VixSnapshot_GetChild(VixHandle parent, int index, VixHandle *child);
VixError VixSnapshot_GetParent(VixHandle snapshot, VixHandle *parent);
VixError VixJob_Wait(VixHandle job, int firstPropertyID, ...);
VixError VixJob_CheckCompletion(VixHandle job, Bool *complete);
VixError VixJob_GetError(VixHandle job);
int VixJob_GetNumProperties(VixHandle job, int resultPropertyID);
VixError VixJob_GetNthProperties(VixHandle job, int index, int propertyID, ...);
VixError VixPropertyList_AllocPropertyList(VixHandle host, VixHandle *result, int firstPropertyID, ...);
VixError Vix_GetProperties(VixHandle handle, int firstPropertyID, ...);
VixError Vix_GetPropertyType(VixHandle handle, int propertyID, int *propertyType);
const char *Vix_GetErrorText(VixError err, const char *locale);
void Vix_ReleaseHandle(VixHandle handle);
void Vix_FreeBuffer(void *p);

enum { SERVER = 10 };
enum { HANDLE = 3010, EXISTS = 3011, EXIT_CODE = 3018, ELAPSED = 3017, ITEM_NAME = 3035, PROCESS_ID = 3051,
       LOCATION = 4010, POWER_STATE = 129, VM_NAME = 108, MEMORY_SIZE = 106, SNAPSHOT_NAME = 4200, NUM_VCPUS = 101,
       IS_RUNNING = 196, PASSWORD = 7001 };
enum { POWERED_OFF = 0x2, POWERED_ON = 0x8, PAUSED = 0x200 };
enum { INCLUDE_MEMORY = 2, REMOVE_CHILDREN = 1, DELETE_FILES = 2, RETURN_IMMEDIATELY = 1 };
enum { FULL = 0, LINKED = 1 };

static int steps;
static int found;
static const char *wanted;

static void
expect(const char *step, VixError error, int code)
{
   printf("%3d %-40s %llu\n", ++steps, step, (unsigned long long)error);
   fflush(stdout);
   if ((int)(error & 0xFFFF) != code) {
      fprintf(stderr, "%s: expected %d, got %llu: %s\n", step, code, (unsigned long long)error,
              Vix_GetErrorText(error, 0));
      exit(1);
   }
}

static void
must(const char *what, int truth)
{
   if (!truth) {
      fprintf(stderr, "it does not hold that %s\n", what);
      exit(1);
   }
}

/* Waits for a job, and releases it. */
static void
job(const char *step, VixHandle handle, int code)
{
   VixError error = VixJob_Wait(handle, 0);
   must("a job's error is the same twice", error == VixJob_GetError(handle));
   Vix_ReleaseHandle(handle);
   expect(step, error, code);
}

static VixHandle
job_handle(const char *step, VixHandle handle)
{
   VixHandle result = 0;
   VixError error = VixJob_Wait(handle, HANDLE, &result, 0);
   Vix_ReleaseHandle(handle);
   expect(step, error, 0);
   must("a handle comes back", result != 0);
   return result;
}

static int
exists(const char *step, VixHandle handle)
{
   /* Wider than what is written, as many clients have it: only the low byte may change. */
   struct { Bool flag; char guard[7]; } result = { 0x55, "guard!" };
   VixError error = VixJob_Wait(handle, EXISTS, &result.flag, 0);
   Vix_ReleaseHandle(handle);
   expect(step, error, 0);
   must("a Bool is one byte", strcmp(result.guard, "guard!") == 0);
   return result.flag;
}

static int
power(VixHandle vm)
{
   int state = 0;
   must("the power state can be read", Vix_GetProperties(vm, POWER_STATE, &state, 0) == 0);
   return state;
}

static void
on_event(VixHandle handle, int event, VixHandle more, void *data)
{
   char *location = 0;
   (void)handle;
   if (event == 8) {
      must("a found item has a location", Vix_GetProperties(more, LOCATION, &location, 0) == 0);
      found += strstr(location, wanted) != 0;
      Vix_FreeBuffer(location);
   } else if (event == 2) {
      /* The last word of this job; the waiting thread polls for it. */
      __atomic_store_n((int *)data, 1, __ATOMIC_RELEASE);
   }
}

static VixHandle
log_in(VixHandle vm, const char *user, const char *password)
{
   job("WaitForToolsInGuest", VixVM_WaitForToolsInGuest(vm, 300, 0, 0), 0);
   job("LoginInGuest", VixVM_LoginInGuest(vm, user, password, 0, 0, 0), 0);
   return vm;
}

static void
files_and_programs(VixHandle vm, char **argument)
{
   const char *directory = argument[7], *program = argument[10];
   char back[4096], *name = 0;
   uint64_t pid = 0;
   int status = -1, elapsed = -1, count, i, seen = 0;
   VixHandle handle;

   job("not logged in", VixVM_CreateDirectoryInGuest(vm, "/tmp/client", 0, 0, 0), 3018);
   job("wrong password", VixVM_LoginInGuest(vm, argument[8], "wrong", 0, 0, 0), 3015);
   job("empty password", VixVM_LoginInGuest(vm, argument[8], "", 0, 0, 0), 3033);
   job("LoginInGuest", VixVM_LoginInGuest(vm, argument[8], argument[9], 0, 0, 0), 0);
   job("CreateDirectory, with parents", VixVM_CreateDirectoryInGuest(vm, "/tmp/client/a/b", 0, 0, 0), 0);
   job("CreateDirectory again", VixVM_CreateDirectoryInGuest(vm, "/tmp/client/a", 0, 0, 0), 12);
   must("the directory is there", exists("DirectoryExists", VixVM_DirectoryExistsInGuest(vm, "/tmp/client/a", 0, 0)));
   must("a directory is no file", !exists("FileExists", VixVM_FileExistsInGuest(vm, "/tmp/client/a", 0, 0)));

   snprintf(back, sizeof back, "%s/nowhere", directory);
   job("copy what is not there", VixVM_CopyFileFromHostToGuest(vm, back, "/tmp/x", 0, 0, 0, 0), 4);
   job("CopyFileFromHostToGuest", VixVM_CopyFileFromHostToGuest(vm, program, "/tmp/client/program", 0, 0, 0, 0), 0);
   must("the file is there", exists("FileExists", VixVM_FileExistsInGuest(vm, "/tmp/client/program", 0, 0)));
   job("run what is not there", VixVM_RunProgramInGuest(vm, "/tmp/client/none", 0, 0, 0, 0, 0), 4);
   job("run what is not executable", VixVM_RunProgramInGuest(vm, "/tmp/client/program", 0, 0, 0, 0, 0), 3015);
   handle = VixVM_RunProgramInGuest(vm, "/bin/chmod", "755 /tmp/client/program", 0, 0, 0, 0);
   expect("RunProgramInGuest: chmod", VixJob_Wait(handle, EXIT_CODE, &status, 0), 0);
   Vix_ReleaseHandle(handle);
   must("chmod works", status == 0);
   handle = VixVM_RunProgramInGuest(vm, "/tmp/client/program", "", 0, 0, 0, 0);
   expect("RunProgramInGuest", VixJob_Wait(handle, EXIT_CODE, &status, ELAPSED, &elapsed, PROCESS_ID, &pid, 0), 0);
   Vix_ReleaseHandle(handle);
   must("the program's status comes back", status == atoi(argument[11]));
   must("it had a number and took a time", pid != 0 && elapsed >= 0);

   handle = VixVM_ListDirectoryInGuest(vm, "/tmp/client", 0, 0, 0);
   expect("ListDirectoryInGuest", VixJob_Wait(handle, 0), 0);
   count = VixJob_GetNumProperties(handle, ITEM_NAME);
   for (i = 0; i < count; i++) {
      must("a list's items can be read", VixJob_GetNthProperties(handle, i, ITEM_NAME, &name, 0) == 0);
      seen += strcmp(name, "a") == 0 || strcmp(name, "program") == 0;
      Vix_FreeBuffer(name);
   }
   must("a list has an end", (VixJob_GetNthProperties(handle, count, ITEM_NAME, &name, 0) & 0xFFFF) != 0);
   Vix_ReleaseHandle(handle);
   must("both entries are listed", seen == 2);

   snprintf(back, sizeof back, "%s/back", directory);
   job("CopyFileFromGuestToHost", VixVM_CopyFileFromGuestToHost(vm, "/tmp/client/program", back, 0, 0, 0, 0), 0);
}

/* Two snapshots below each other, with the first's state brought back at the end. */
static void
many_snapshots(VixHandle vm, char **argument)
{
   VixHandle first, second, handle;
   char *name = 0;
   int count = -1;

   first = job_handle("CreateSnapshot first", VixVM_CreateSnapshot(vm, "first", "with files", 0, 0, 0, 0));
   job("DeleteFileInGuest", VixVM_DeleteFileInGuest(vm, "/tmp/client/program", 0, 0), 0);
   second = job_handle("CreateSnapshot second", VixVM_CreateSnapshot(vm, "second", "", 0, 0, 0, 0));

   expect("GetNumRootSnapshots", VixVM_GetNumRootSnapshots(vm, &count), 0);
   must("there is one root", count == 1);
   expect("GetRootSnapshot", VixVM_GetRootSnapshot(vm, 0, &handle), 0);
   must("the same snapshot is the same handle", handle == first);
   Vix_ReleaseHandle(handle);
   expect("GetNumChildren", VixSnapshot_GetNumChildren(first, &count), 0);
   must("it has one child", count == 1);
   expect("GetChild", VixSnapshot_GetChild(first, 0, &handle), 0);
   must("the child is the second", handle == second);
   Vix_ReleaseHandle(handle);
   expect("GetParent of a root", VixSnapshot_GetParent(first, &handle), 0);
   must("a root has no parent", handle == 0);
   expect("GetNamedSnapshot by path", VixVM_GetNamedSnapshot(vm, "first/second", &handle), 0);
   must("a path leads to the second", handle == second);
   Vix_ReleaseHandle(handle);
   expect("GetNamedSnapshot of none", VixVM_GetNamedSnapshot(vm, "third", &handle), 13003);
   expect("a snapshot's name", Vix_GetProperties(second, SNAPSHOT_NAME, &name, 0), 0);
   must("the name is the one given", strcmp(name, "second") == 0);
   Vix_FreeBuffer(name);

   job("RevertToSnapshot", VixVM_RevertToSnapshot(vm, first, 0, 0, 0, 0), 0);
   must("without memory it comes back off", power(vm) & POWERED_OFF);
   job("PowerOn", VixVM_PowerOn(vm, 0, 0, 0, 0), 0);
   log_in(vm, argument[8], argument[9]);
   must("the file is back", exists("FileExists", VixVM_FileExistsInGuest(vm, "/tmp/client/program", 0, 0)));
   Vix_ReleaseHandle(first);
   Vix_ReleaseHandle(second);
}

/* A server keeps one snapshot: the second overwrites the first. */
static void
one_snapshot(VixHandle vm)
{
   VixHandle handle;
   int count = -1;
   job("CreateSnapshot first", VixVM_CreateSnapshot(vm, "first", "", 0, 0, 0, 0), 0);
   job("CreateSnapshot second", VixVM_CreateSnapshot(vm, "second", "", 0, 0, 0, 0), 0);
   expect("GetNumRootSnapshots", VixVM_GetNumRootSnapshots(vm, &count), 0);
   must("there is one snapshot", count == 1);
   expect("the first is gone", VixVM_GetNamedSnapshot(vm, "first", &handle), 13003);
   expect("GetRootSnapshot", VixVM_GetRootSnapshot(vm, 0, &handle), 0);
   job("RevertToSnapshot", VixVM_RevertToSnapshot(vm, handle, 0, 0, 0, 0), 0);
   must("without memory it comes back off", power(vm) & POWERED_OFF);
   Vix_ReleaseHandle(handle);
   job("PowerOn", VixVM_PowerOn(vm, 0, 0, 0, 0), 0);
   job("Pause is not there", VixVM_Pause(vm, 0, 0, 0, 0), 6);
   job("Clone is not there", VixVM_Clone(vm, 0, FULL, "/tmp/clone/clone.vmx", 0, 0, 0, 0), 6);
}

static void
clone_it(VixHandle vm, const char *destination)
{
   VixHandle clone;
   char *name = 0;
   if (destination == 0) {
      job("Clone is not there", VixVM_Clone(vm, 0, FULL, "/tmp/clone/clone.vmx", 0, 0, 0, 0), 6);
      return;
   }
   job("Clone of a running VM", VixVM_Clone(vm, 0, FULL, destination, 0, 0, 0, 0), 3007);
   job("PowerOff", VixVM_PowerOff(vm, 0, 0, 0), 0);
   clone = job_handle("Clone", VixVM_Clone(vm, 0, LINKED, destination, 0, 0, 0, 0));
   expect("the clone's name", Vix_GetProperties(clone, VM_NAME, &name, 0), 0);
   Vix_FreeBuffer(name);
   job("PowerOn of the clone", VixVM_PowerOn(clone, 0, 0, 0, 0), 0);
   must("the clone runs, its parent does not", (power(clone) & POWERED_ON) && (power(vm) & POWERED_OFF));
   job("PowerOff of the clone", VixVM_PowerOff(clone, 0, 0, 0), 0);
   job("Delete of the clone", VixVM_Delete(clone, DELETE_FILES, 0, 0), 0);
   job("PowerOn of what is deleted", VixVM_PowerOn(clone, 0, 0, 0, 0), 4000);
   Vix_ReleaseHandle(clone);
   job("PowerOn", VixVM_PowerOn(vm, 0, 0, 0, 0), 0);
}

static void
pause_it(VixHandle vm)
{
   job("Pause", VixVM_Pause(vm, 0, 0, 0, 0), 0);
   must("it is paused", power(vm) & PAUSED);
   job("Unpause", VixVM_Unpause(vm, 0, 0, 0, 0), 0);
   must("it runs", (power(vm) & POWERED_ON) && !(power(vm) & PAUSED));
}

static const char *
given(const char *argument)
{
   return strcmp(argument, "-") == 0 ? 0 : argument;
}

int
main(int argc, char **argument)
{
   VixHandle host, vm, again, list, handle;
   int provider, completed = 0, memory = 0, processors = 0, type = 0;
   Bool running = 0, complete = 0;
   char *name;
   VixError error;

   if (argc != 12) {
      fprintf(stderr, "usage: see the head of client.c\n");
      return 2;
   }
   provider = atoi(argument[1]);
   for (wanted = name = argument[5]; *name != 0; name++) {
      if (*name == '/' || *name == '\\') {
         wanted = name + 1;
      }
   }
   handle = VixHost_Connect(-1, provider, given(argument[2]), 0, given(argument[3]), given(argument[4]), 0, 0, 0, 0);
   host = job_handle("Connect", handle);

   if (provider == SERVER) {
      job("open what is not registered", VixVM_Open(host, argument[5], 0, 0), 4000);
      job("RegisterVM", VixHost_RegisterVM(host, argument[5], 0, 0), 0);
      job("RegisterVM again", VixHost_RegisterVM(host, argument[5], 0, 0), 0);
   }
   vm = job_handle("Open", VixVM_Open(host, argument[5], 0, 0));
   again = job_handle("Open again", VixVM_Open(host, argument[5], 0, 0));
   must("the same VM is the same handle", vm == again);
   Vix_ReleaseHandle(again);
   expect("properties of a VM",
          Vix_GetProperties(vm, VM_NAME, &name, MEMORY_SIZE, &memory, NUM_VCPUS, &processors, IS_RUNNING, &running, 0), 0);
   must("the properties are plausible", name[0] != 0 && memory > 0 && processors > 0 && !running);
   Vix_FreeBuffer(name);
   expect("the type of a property", Vix_GetPropertyType(vm, POWER_STATE, &type), 0);
   must("a power state is an integer", type == 1);
   expect("a property that a VM lacks", Vix_GetProperties(vm, EXIT_CODE, &type, 0), 6000);
   expect("AllocPropertyList",
          VixPropertyList_AllocPropertyList(host, &list, PASSWORD, "text", IS_RUNNING, 1, PROCESS_ID,
                                            (int64_t)1 << 40, 0), 0);
   {
      int64_t wide = 0;
      expect("a list's values", Vix_GetProperties(list, PASSWORD, &name, PROCESS_ID, &wide, IS_RUNNING, &running, 0), 0);
      must("a list keeps what it was given", strcmp(name, "text") == 0 && wide == (int64_t)1 << 40 && running == 1);
      Vix_FreeBuffer(name);
   }
   Vix_ReleaseHandle(list);

   job("PowerOff while off", VixVM_PowerOff(vm, 0, 0, 0), 3006);
   job("PowerOn", VixVM_PowerOn(vm, 0, 0, 0, 0), 0);
   job("PowerOn while on", VixVM_PowerOn(vm, 0, 0, 0, 0), 3007);
   handle = VixHost_FindItems(host, 1, 0, -1, on_event, &completed);
   expect("FindItems", VixJob_Wait(handle, 0), 0);
   while (!__atomic_load_n(&completed, __ATOMIC_ACQUIRE)) {
      /* The callback of a job may come after those who wait for it have been let go. */
   }
   Vix_ReleaseHandle(handle);
   must("the running VM is found", found == 1);
   handle = VixVM_WaitForToolsInGuest(vm, 300, 0, 0);
   do {
      error = VixJob_CheckCompletion(handle, &complete);
   } while (error == 0 && !complete);
   Vix_ReleaseHandle(handle);
   expect("WaitForToolsInGuest, polled", error, 0);

   files_and_programs(vm, argument);
   if (provider == SERVER) {
      one_snapshot(vm);
   } else if (provider == 3) {
      many_snapshots(vm, argument);
      pause_it(vm);
      clone_it(vm, given(argument[6]));
   } else {
      job("CreateSnapshot is not there", VixVM_CreateSnapshot(vm, "none", "", 0, 0, 0, 0), 6);
   }

   job("LogoutFromGuest", VixVM_LogoutFromGuest(vm, 0, 0), 0);
   job("PowerOff", VixVM_PowerOff(vm, 0, 0, 0), 0);
   if (provider == SERVER) {
      job("UnregisterVM", VixHost_UnregisterVM(host, argument[5], 0, 0), 0);
   }
   Vix_ReleaseHandle(vm);
   VixHost_Disconnect(host);
   expect("a host is gone after Disconnect", Vix_GetProperties(host, 50, &type, 0), 1000);
   Vix_ReleaseHandle(host);
   printf("passed %d steps\n", steps);
   return 0;
}

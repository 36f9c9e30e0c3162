/*
 * A client that does what its lines say, and prints what came of each: for tests of what lies on disk between clients.
 *
 *   script PROVIDER VMX < LINES
 *
 *   on [OPTIONS] | off | reset | suspend | pause | unpause   power
 *   tools SECONDS | login USER PASSWORD
 *   snapshot NAME MEMORY | revert NAME OPTIONS | remove NAME OPTIONS | roots
 *   state                                              the bits of the power state
 *   put HOST GUEST | get GUEST HOST | exists GUEST
 *   run PROGRAM ARGUMENTS... | start PROGRAM ARGUMENTS... | processes
 *   clone PATH TYPE | delete OPTIONS
 *   share NAME HOST | unshare NAME                     a shared folder, with sharing enabled
 *   variable TYPE NAME | set NAME VALUE | screen       set: a variable of the guest, type 1
 *
 * An encrypted VM is opened with the password "key".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int VixHandle;
typedef uint64_t VixError;
typedef char Bool;
typedef void VixEventProc(VixHandle, int, VixHandle, void *);

VixHandle VixHost_Connect(int, int, const char *, int, const char *, const char *, int, VixHandle, VixEventProc *,
                          void *);
void VixHost_Disconnect(VixHandle);
VixHandle VixHost_OpenVM(VixHandle, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_Open(VixHandle, const char *, VixEventProc *, void *);
VixHandle VixVM_PowerOn(VixHandle, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_PowerOff(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_Reset(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_Suspend(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_Pause(VixHandle, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_Unpause(VixHandle, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_WaitForToolsInGuest(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_LoginInGuest(VixHandle, const char *, const char *, int, VixEventProc *, void *);
VixHandle VixVM_FileExistsInGuest(VixHandle, const char *, VixEventProc *, void *);
VixHandle VixVM_CopyFileFromHostToGuest(VixHandle, const char *, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_CopyFileFromGuestToHost(VixHandle, const char *, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_RunProgramInGuest(VixHandle, const char *, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_ListProcessesInGuest(VixHandle, int, VixEventProc *, void *);
VixError VixVM_GetNumRootSnapshots(VixHandle, int *);
VixError VixVM_GetNamedSnapshot(VixHandle, const char *, VixHandle *);
VixHandle VixVM_CreateSnapshot(VixHandle, const char *, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_RevertToSnapshot(VixHandle, VixHandle, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_RemoveSnapshot(VixHandle, VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_Clone(VixHandle, VixHandle, int, const char *, int, VixHandle, VixEventProc *, void *);
VixHandle VixVM_Delete(VixHandle, int, VixEventProc *, void *);
VixHandle VixVM_EnableSharedFolders(VixHandle, Bool, int, VixEventProc *, void *);
VixHandle VixVM_AddSharedFolder(VixHandle, const char *, const char *, int, VixEventProc *, void *);
VixHandle VixVM_RemoveSharedFolder(VixHandle, const char *, int, VixEventProc *, void *);
VixHandle VixVM_ReadVariable(VixHandle, int, const char *, int, VixEventProc *, void *);
VixHandle VixVM_WriteVariable(VixHandle, int, const char *, const char *, int, VixEventProc *, void *);
VixHandle VixVM_CaptureScreenImage(VixHandle, int, VixHandle, VixEventProc *, void *);
VixError VixPropertyList_AllocPropertyList(VixHandle, VixHandle *, int, ...);
VixError VixJob_Wait(VixHandle, int, ...);
int VixJob_GetNumProperties(VixHandle, int);
VixError Vix_GetProperties(VixHandle, int, ...);
void Vix_ReleaseHandle(VixHandle);
void Vix_FreeBuffer(void *);

static VixHandle vm;

static VixError
ended(VixHandle job)
{
   VixError error = VixJob_Wait(job, 0);
   Vix_ReleaseHandle(job);
   return error;
}

static VixHandle
handle_of(VixHandle job)
{
   VixHandle result = 0;
   VixError error = VixJob_Wait(job, 3010, &result, 0);
   Vix_ReleaseHandle(job);
   if (error != 0) {
      printf("cannot begin: %llu\n", (unsigned long long)error);
      exit(3);
   }
   return result;
}

/* Something that is done to a snapshot by name. */
static VixError
on_snapshot(const char *name, int options, int revert)
{
   VixHandle snapshot;
   VixError error = VixVM_GetNamedSnapshot(vm, name, &snapshot);
   if (error == 0) {
      error = ended(revert ? VixVM_RevertToSnapshot(vm, snapshot, options, 0, 0, 0)
                           : VixVM_RemoveSnapshot(vm, snapshot, options, 0, 0));
      Vix_ReleaseHandle(snapshot);
   }
   return error;
}

static VixError
carry_out(const char *verb, const char *a, const char *b)
{
   VixHandle job;
   VixError error;
   Bool exists = 0;
   int number = -1;
   char *text = 0;
   if (!strcmp(verb, "on")) return ended(VixVM_PowerOn(vm, atoi(a), 0, 0, 0));
   if (!strcmp(verb, "share")) {
      error = ended(VixVM_EnableSharedFolders(vm, 1, 0, 0, 0));
      return error != 0 ? error : ended(VixVM_AddSharedFolder(vm, a, b, 0, 0, 0));
   }
   if (!strcmp(verb, "unshare")) return ended(VixVM_RemoveSharedFolder(vm, a, 0, 0, 0));
   if (!strcmp(verb, "screen")) return ended(VixVM_CaptureScreenImage(vm, 1, 0, 0, 0));
   if (!strcmp(verb, "set")) return ended(VixVM_WriteVariable(vm, 1, a, b, 0, 0, 0));
   if (!strcmp(verb, "variable")) {
      job = VixVM_ReadVariable(vm, atoi(a), b, 0, 0, 0);
      error = VixJob_Wait(job, 3056, &text, 0);
      Vix_ReleaseHandle(job);
      if (error == 0) {
         printf("=\"%s\" ", text);
         Vix_FreeBuffer(text);
      }
      return error;
   }
   if (!strcmp(verb, "off")) return ended(VixVM_PowerOff(vm, 0, 0, 0));
   if (!strcmp(verb, "reset")) return ended(VixVM_Reset(vm, 0, 0, 0));
   if (!strcmp(verb, "suspend")) return ended(VixVM_Suspend(vm, 0, 0, 0));
   if (!strcmp(verb, "pause")) return ended(VixVM_Pause(vm, 0, 0, 0, 0));
   if (!strcmp(verb, "unpause")) return ended(VixVM_Unpause(vm, 0, 0, 0, 0));
   if (!strcmp(verb, "tools")) return ended(VixVM_WaitForToolsInGuest(vm, atoi(a), 0, 0));
   if (!strcmp(verb, "login")) return ended(VixVM_LoginInGuest(vm, a, b, 0, 0, 0));
   if (!strcmp(verb, "snapshot")) return ended(VixVM_CreateSnapshot(vm, a, "", atoi(b), 0, 0, 0));
   if (!strcmp(verb, "revert")) return on_snapshot(a, atoi(b), 1);
   if (!strcmp(verb, "remove")) return on_snapshot(a, atoi(b), 0);
   if (!strcmp(verb, "put")) return ended(VixVM_CopyFileFromHostToGuest(vm, a, b, 0, 0, 0, 0));
   if (!strcmp(verb, "get")) return ended(VixVM_CopyFileFromGuestToHost(vm, a, b, 0, 0, 0, 0));
   if (!strcmp(verb, "start")) return ended(VixVM_RunProgramInGuest(vm, a, b, 1, 0, 0, 0));
   if (!strcmp(verb, "clone")) return ended(VixVM_Clone(vm, 0, atoi(b), a, 0, 0, 0, 0));
   if (!strcmp(verb, "delete")) return ended(VixVM_Delete(vm, atoi(a), 0, 0));
   if (!strcmp(verb, "run")) {
      job = VixVM_RunProgramInGuest(vm, a, b, 0, 0, 0, 0);
      error = VixJob_Wait(job, 3018, &number, 0);
   } else if (!strcmp(verb, "exists")) {
      job = VixVM_FileExistsInGuest(vm, a, 0, 0);
      error = VixJob_Wait(job, 3011, &exists, 0);
      number = exists;
   } else if (!strcmp(verb, "processes")) {
      job = VixVM_ListProcessesInGuest(vm, 0, 0, 0);
      error = VixJob_Wait(job, 0);
      number = VixJob_GetNumProperties(job, 3051);
   } else {
      job = 0;
      error = !strcmp(verb, "roots") ? VixVM_GetNumRootSnapshots(vm, &number)
            : !strcmp(verb, "state") ? Vix_GetProperties(vm, 129, &number, 0)
            : 77777;
   }
   Vix_ReleaseHandle(job);
   if (error == 0) {
      printf("=%d ", number);
   }
   return error;
}

int
main(int argc, char **argument)
{
   char line[4096];
   VixHandle host, list, job;
   if (argc != 3) {
      return 2;
   }
   host = handle_of(VixHost_Connect(-1, atoi(argument[1]), 0, 0, 0, 0, 0, 0, 0, 0));
   job = VixVM_Open(host, argument[2], 0, 0);
   if ((VixJob_Wait(job, 0) & 0xFFFF) == 17004) {
      Vix_ReleaseHandle(job);
      if (VixPropertyList_AllocPropertyList(host, &list, 7001, "key", 0) != 0) {
         return 3;
      }
      job = VixHost_OpenVM(host, argument[2], 0, list, 0, 0);
   }
   vm = handle_of(job);
   while (fgets(line, sizeof line, stdin) != 0) {
      char *verb = strtok(line, " \n"), *a = strtok(0, " \n"), *b = strtok(0, "\n");
      VixError error = carry_out(verb, a != 0 ? a : "", b != 0 ? b : "");
      printf("%s: %llu\n", verb, (unsigned long long)(error & 0xFFFF));
      fflush(stdout);
   }
   Vix_ReleaseHandle(vm);
   VixHost_Disconnect(host);
   return 0;
}

//! The 67 functions of the current public header, and which product of the 1.13 reference's matrix has which.

use crate::product::Product;

/// Functions that the public header lost in VIX 1.11. Older libraries export them; a client binds them optionally.
pub const REMOVED_IN_1_11: [&str; 6] = [
    "Vix_PumpEvents",
    "VixVM_OpenUrlInGuest",
    "VixVM_BeginRecording",
    "VixVM_EndRecording",
    "VixVM_BeginReplay",
    "VixVM_EndReplay",
];

macro_rules! functions {
    ($($variant:ident $name:literal [$($has:literal)*],)*) => {
        /// A function of the public header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Function {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl Function {
            /// All of them, in the header's order.
            pub const ALL: [Self; 67] = [$(Self::$variant),*];

            /// Its C name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether a product has it. What it lacks answers
            /// [`NOT_SUPPORTED`](crate::error_code::NOT_SUPPORTED).
            #[must_use]
            pub const fn is_in(self, product: Product) -> bool {
                let row: [u8; Product::ALL.len()] = match self {
                    $(Self::$variant => [$($has),*],)*
                };
                row[product as usize] == 1
            }
        }
    };
}

impl Function {
    /// The function with this C name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

// Columns as in `Product::ALL`. `Vix_AddRefHandle` is in no matrix: it only counts references, so every product has it.
functions! {
    GetErrorText "Vix_GetErrorText" [1 1 1 1 1 1 1 1],
    ReleaseHandle "Vix_ReleaseHandle" [1 1 1 1 1 1 1 1],
    AddRefHandle "Vix_AddRefHandle" [1 1 1 1 1 1 1 1],
    GetHandleType "Vix_GetHandleType" [1 1 1 1 1 1 1 1],
    GetProperties "Vix_GetProperties" [1 1 1 1 1 1 1 1],
    GetPropertyType "Vix_GetPropertyType" [1 1 1 1 1 1 1 1],
    FreeBuffer "Vix_FreeBuffer" [1 1 1 1 1 1 1 1],
    HostConnect "VixHost_Connect" [1 1 1 1 1 1 1 1],
    HostDisconnect "VixHost_Disconnect" [1 1 1 1 1 1 1 1],
    HostRegisterVm "VixHost_RegisterVM" [1 1 0 0 1 0 0 1],
    HostUnregisterVm "VixHost_UnregisterVM" [1 1 0 0 1 0 0 1],
    HostFindItems "VixHost_FindItems" [1 1 1 1 1 1 1 1],
    HostOpenVm "VixHost_OpenVM" [0 0 0 1 1 1 1 1],
    PropertyListAllocPropertyList "VixPropertyList_AllocPropertyList" [0 1 1 1 1 1 1 1],
    VmOpen "VixVM_Open" [1 1 1 1 1 1 1 1],
    VmPowerOn "VixVM_PowerOn" [1 1 1 1 1 1 1 1],
    VmPowerOff "VixVM_PowerOff" [1 1 1 1 1 1 1 1],
    VmReset "VixVM_Reset" [1 1 1 1 1 1 1 1],
    VmSuspend "VixVM_Suspend" [1 1 1 1 1 1 1 1],
    VmPause "VixVM_Pause" [0 0 1 1 0 0 1 0],
    VmUnpause "VixVM_Unpause" [0 0 1 1 0 0 1 0],
    VmDelete "VixVM_Delete" [1 1 1 1 1 1 1 1],
    VmWaitForToolsInGuest "VixVM_WaitForToolsInGuest" [1 1 1 1 1 1 1 1],
    VmLoginInGuest "VixVM_LoginInGuest" [1 1 1 1 1 1 1 1],
    VmLogoutFromGuest "VixVM_LogoutFromGuest" [0 1 1 1 1 1 1 1],
    VmRunProgramInGuest "VixVM_RunProgramInGuest" [1 1 1 1 1 1 1 1],
    VmListProcessesInGuest "VixVM_ListProcessesInGuest" [0 1 1 1 1 1 1 1],
    VmKillProcessInGuest "VixVM_KillProcessInGuest" [0 1 1 1 1 1 1 1],
    VmRunScriptInGuest "VixVM_RunScriptInGuest" [0 1 1 1 1 1 1 1],
    VmCopyFileFromHostToGuest "VixVM_CopyFileFromHostToGuest" [1 1 1 1 1 1 1 1],
    VmCopyFileFromGuestToHost "VixVM_CopyFileFromGuestToHost" [1 1 1 1 1 1 1 1],
    VmDeleteFileInGuest "VixVM_DeleteFileInGuest" [0 1 1 1 1 1 1 1],
    VmFileExistsInGuest "VixVM_FileExistsInGuest" [0 1 1 1 1 1 1 1],
    VmRenameFileInGuest "VixVM_RenameFileInGuest" [0 1 1 1 1 1 1 1],
    VmCreateTempFileInGuest "VixVM_CreateTempFileInGuest" [0 1 1 1 1 1 1 1],
    VmGetFileInfoInGuest "VixVM_GetFileInfoInGuest" [0 1 1 1 1 1 1 1],
    VmListDirectoryInGuest "VixVM_ListDirectoryInGuest" [0 1 1 1 1 1 1 1],
    VmCreateDirectoryInGuest "VixVM_CreateDirectoryInGuest" [0 1 1 1 1 1 1 1],
    VmDeleteDirectoryInGuest "VixVM_DeleteDirectoryInGuest" [0 1 1 1 1 1 1 1],
    VmDirectoryExistsInGuest "VixVM_DirectoryExistsInGuest" [0 1 1 1 1 1 1 1],
    VmReadVariable "VixVM_ReadVariable" [0 1 1 1 1 1 1 1],
    VmWriteVariable "VixVM_WriteVariable" [0 1 1 1 1 1 1 1],
    VmGetNumRootSnapshots "VixVM_GetNumRootSnapshots" [0 1 1 1 1 0 1 1],
    VmGetRootSnapshot "VixVM_GetRootSnapshot" [1 1 1 1 1 0 1 1],
    VmGetCurrentSnapshot "VixVM_GetCurrentSnapshot" [0 1 1 1 1 0 1 1],
    VmGetNamedSnapshot "VixVM_GetNamedSnapshot" [0 1 1 1 1 0 1 1],
    VmRemoveSnapshot "VixVM_RemoveSnapshot" [1 1 1 1 1 0 1 1],
    VmRevertToSnapshot "VixVM_RevertToSnapshot" [1 1 1 1 1 0 1 1],
    VmCreateSnapshot "VixVM_CreateSnapshot" [0 1 1 1 1 0 1 1],
    VmEnableSharedFolders "VixVM_EnableSharedFolders" [0 0 1 1 0 1 1 0],
    VmGetNumSharedFolders "VixVM_GetNumSharedFolders" [0 0 1 1 0 1 1 0],
    VmGetSharedFolderState "VixVM_GetSharedFolderState" [0 0 1 1 0 1 1 0],
    VmSetSharedFolderState "VixVM_SetSharedFolderState" [0 0 1 1 0 1 1 0],
    VmAddSharedFolder "VixVM_AddSharedFolder" [0 0 1 1 0 1 1 0],
    VmRemoveSharedFolder "VixVM_RemoveSharedFolder" [0 0 1 1 0 1 1 0],
    VmCaptureScreenImage "VixVM_CaptureScreenImage" [0 1 1 1 1 1 1 1],
    VmClone "VixVM_Clone" [0 0 1 1 0 0 0 0],
    VmUpgradeVirtualHardware "VixVM_UpgradeVirtualHardware" [1 1 1 1 1 0 1 1],
    VmInstallTools "VixVM_InstallTools" [1 1 1 1 1 1 1 1],
    JobWait "VixJob_Wait" [1 1 1 1 1 1 1 1],
    JobCheckCompletion "VixJob_CheckCompletion" [1 1 1 1 1 1 1 1],
    JobGetError "VixJob_GetError" [1 1 1 1 1 1 1 1],
    JobGetNumProperties "VixJob_GetNumProperties" [0 1 1 1 1 1 1 1],
    JobGetNthProperties "VixJob_GetNthProperties" [0 1 1 1 1 1 1 1],
    SnapshotGetNumChildren "VixSnapshot_GetNumChildren" [0 1 1 1 1 0 1 1],
    SnapshotGetChild "VixSnapshot_GetChild" [0 1 1 1 1 0 1 1],
    SnapshotGetParent "VixSnapshot_GetParent" [0 1 1 1 1 0 1 1],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for function in Function::ALL {
            assert_eq!(Function::from_name(function.name()), Some(function));
        }
        assert_eq!(Function::from_name("VixVM_OpenUrlInGuest"), None);
    }

    #[test]
    fn the_matrix_says_what_the_reference_says_where_products_differ() {
        use Function::*;
        use Product::*;
        for (function, product, has) in [
            (VmClone, Server2, false),
            (VmClone, Workstation, true),
            (VmClone, Fusion, false),
            (VmPause, Server2, false),
            (VmPause, Player, false),
            (VmPause, Fusion, true),
            (HostOpenVm, Server2, false),
            (HostOpenVm, Player, true),
            (VmCreateSnapshot, Player, false),
            (VmCreateSnapshot, Server2, true),
            (HostRegisterVm, Workstation, false),
            (HostRegisterVm, WorkstationShared, true),
            (VmAddSharedFolder, Server2, false),
            (JobGetNumProperties, Server1, false),
        ] {
            assert_eq!(function.is_in(product), has, "{function:?} on {product:?}");
        }
    }
}

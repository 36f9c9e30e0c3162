//! The small sets of numbers. All are `int` in C and open sets: a newer product may set bits that have no name here.

/// What a handle names (`VixHandleType`).
pub mod handle_type {
    /// `VIX_HANDLETYPE_NONE`.
    pub const NONE: i32 = 0;
    /// `VIX_HANDLETYPE_HOST`.
    pub const HOST: i32 = 2;
    /// `VIX_HANDLETYPE_VM`.
    pub const VM: i32 = 3;
    /// `VIX_HANDLETYPE_NETWORK`.
    pub const NETWORK: i32 = 5;
    /// `VIX_HANDLETYPE_JOB`.
    pub const JOB: i32 = 6;
    /// `VIX_HANDLETYPE_SNAPSHOT`.
    pub const SNAPSHOT: i32 = 7;
    /// `VIX_HANDLETYPE_PROPERTY_LIST`.
    pub const PROPERTY_LIST: i32 = 9;
    /// `VIX_HANDLETYPE_METADATA_CONTAINER`.
    pub const METADATA_CONTAINER: i32 = 11;
}

/// How wide a property's value is (`VixPropertyType`).
pub mod property_type {
    /// `VIX_PROPERTYTYPE_ANY`.
    pub const ANY: i32 = 0;
    /// `VIX_PROPERTYTYPE_INTEGER`.
    pub const INTEGER: i32 = 1;
    /// `VIX_PROPERTYTYPE_STRING`.
    pub const STRING: i32 = 2;
    /// `VIX_PROPERTYTYPE_BOOL`.
    pub const BOOL: i32 = 3;
    /// `VIX_PROPERTYTYPE_HANDLE`.
    pub const HANDLE: i32 = 4;
    /// `VIX_PROPERTYTYPE_INT64`.
    pub const INT64: i32 = 5;
    /// `VIX_PROPERTYTYPE_BLOB`.
    pub const BLOB: i32 = 6;
}

/// Why a callback is called (`VixEventType`).
pub mod event_type {
    /// `VIX_EVENTTYPE_JOB_COMPLETED`.
    pub const JOB_COMPLETED: i32 = 2;
    /// `VIX_EVENTTYPE_JOB_PROGRESS`.
    pub const JOB_PROGRESS: i32 = 3;
    /// `VIX_EVENTTYPE_FIND_ITEM`.
    pub const FIND_ITEM: i32 = 8;
    /// `VIX_EVENTTYPE_CALLBACK_SIGNALLED`.
    pub const CALLBACK_SIGNALLED: i32 = 2;
}

/// Whom to connect to (`VixServiceProvider`).
pub mod service_provider {
    /// `VIX_SERVICEPROVIDER_DEFAULT`.
    pub const DEFAULT: i32 = 1;
    /// `VIX_SERVICEPROVIDER_VMWARE_SERVER`.
    pub const VMWARE_SERVER: i32 = 2;
    /// `VIX_SERVICEPROVIDER_VMWARE_WORKSTATION`.
    pub const VMWARE_WORKSTATION: i32 = 3;
    /// `VIX_SERVICEPROVIDER_VMWARE_PLAYER`.
    pub const VMWARE_PLAYER: i32 = 4;
    /// `VIX_SERVICEPROVIDER_VMWARE_VI_SERVER`.
    pub const VMWARE_VI_SERVER: i32 = 10;
    /// `VIX_SERVICEPROVIDER_VMWARE_WORKSTATION_SHARED`.
    pub const VMWARE_WORKSTATION_SHARED: i32 = 11;
}

/// Flags of `VixHost_Connect` (`VixHostOptions`).
pub mod host_option {
    /// No option.
    pub const NONE: i32 = 0;
    /// `VIX_HOSTOPTION_VERIFY_SSL_CERT`.
    pub const VERIFY_SSL_CERT: i32 = 0x4000;
    /// `VIX_HOSTOPTION_USE_EVENT_PUMP`: removed from the header in VIX 1.11.
    pub const USE_EVENT_PUMP: i32 = 0x8;
}

/// What `VixHost_FindItems` looks for (`VixFindItemType`).
pub mod find {
    /// `VIX_FIND_RUNNING_VMS`.
    pub const RUNNING_VMS: i32 = 1;
    /// `VIX_FIND_REGISTERED_VMS`.
    pub const REGISTERED_VMS: i32 = 4;
}

/// Flags of `VixHost_OpenVM` (`VixVMOpenOptions`).
pub mod vm_open {
    /// `VIX_VMOPEN_NORMAL`.
    pub const NORMAL: i32 = 0x0;
}

/// Flags of power operations and of `VixVM_RevertToSnapshot` (`VixVMPowerOpOptions`).
pub mod power_op {
    /// `VIX_VMPOWEROP_NORMAL`.
    pub const NORMAL: i32 = 0;
    /// `VIX_VMPOWEROP_FROM_GUEST`.
    pub const FROM_GUEST: i32 = 0x4;
    /// `VIX_VMPOWEROP_SUPPRESS_SNAPSHOT_POWERON`.
    pub const SUPPRESS_SNAPSHOT_POWERON: i32 = 0x80;
    /// `VIX_VMPOWEROP_LAUNCH_GUI`.
    pub const LAUNCH_GUI: i32 = 0x200;
    /// `VIX_VMPOWEROP_START_VM_PAUSED`.
    pub const START_VM_PAUSED: i32 = 0x1000;
}

/// Flags of `VixVM_Delete` (`VixVMDeleteOptions`).
pub mod vm_delete {
    /// `VIX_VMDELETE_DISK_FILES`.
    pub const DISK_FILES: i32 = 0x2;
}

/// Bits of [`property::VM_POWER_STATE`](crate::property::VM_POWER_STATE): several may be set (`VixPowerState`).
pub mod power_state {
    /// `VIX_POWERSTATE_POWERING_OFF`.
    pub const POWERING_OFF: i32 = 0x1;
    /// `VIX_POWERSTATE_POWERED_OFF`.
    pub const POWERED_OFF: i32 = 0x2;
    /// `VIX_POWERSTATE_POWERING_ON`.
    pub const POWERING_ON: i32 = 0x4;
    /// `VIX_POWERSTATE_POWERED_ON`.
    pub const POWERED_ON: i32 = 0x8;
    /// `VIX_POWERSTATE_SUSPENDING`.
    pub const SUSPENDING: i32 = 0x10;
    /// `VIX_POWERSTATE_SUSPENDED`.
    pub const SUSPENDED: i32 = 0x20;
    /// `VIX_POWERSTATE_TOOLS_RUNNING`.
    pub const TOOLS_RUNNING: i32 = 0x40;
    /// `VIX_POWERSTATE_RESETTING`.
    pub const RESETTING: i32 = 0x80;
    /// `VIX_POWERSTATE_BLOCKED_ON_MSG`.
    pub const BLOCKED_ON_MSG: i32 = 0x100;
    /// `VIX_POWERSTATE_PAUSED`.
    pub const PAUSED: i32 = 0x200;
    /// `VIX_POWERSTATE_RESUMING`.
    pub const RESUMING: i32 = 0x800;
}

/// Values of [`property::VM_TOOLS_STATE`](crate::property::VM_TOOLS_STATE) (`VixToolsState`).
pub mod tools_state {
    /// `VIX_TOOLSSTATE_UNKNOWN`.
    pub const UNKNOWN: i32 = 0x1;
    /// `VIX_TOOLSSTATE_RUNNING`.
    pub const RUNNING: i32 = 0x2;
    /// `VIX_TOOLSSTATE_NOT_INSTALLED`.
    pub const NOT_INSTALLED: i32 = 0x4;
}

/// Bits of [`property::VM_SUPPORTED_FEATURES`](crate::property::VM_SUPPORTED_FEATURES).
pub mod vm_feature {
    /// `VIX_VM_SUPPORT_SHARED_FOLDERS`.
    pub const SHARED_FOLDERS: i32 = 0x1;
    /// `VIX_VM_SUPPORT_MULTIPLE_SNAPSHOTS`.
    pub const MULTIPLE_SNAPSHOTS: i32 = 0x2;
    /// `VIX_VM_SUPPORT_TOOLS_INSTALL`.
    pub const TOOLS_INSTALL: i32 = 0x4;
    /// `VIX_VM_SUPPORT_HARDWARE_UPGRADE`.
    pub const HARDWARE_UPGRADE: i32 = 0x8;
}

/// Flags of `VixVM_LoginInGuest`.
pub mod login {
    /// `VIX_LOGIN_IN_GUEST_REQUIRE_INTERACTIVE_ENVIRONMENT`.
    pub const REQUIRE_INTERACTIVE_ENVIRONMENT: i32 = 0x8;
}

/// Flags of `VixVM_RunProgramInGuest` and `VixVM_RunScriptInGuest` (`VixRunProgramOptions`).
pub mod run_program {
    /// `VIX_RUNPROGRAM_RETURN_IMMEDIATELY`.
    pub const RETURN_IMMEDIATELY: i32 = 0x1;
    /// `VIX_RUNPROGRAM_ACTIVATE_WINDOW`.
    pub const ACTIVATE_WINDOW: i32 = 0x2;
}

/// Which kind of variable `VixVM_ReadVariable` means.
pub mod variable {
    /// `VIX_VM_GUEST_VARIABLE`.
    pub const VM_GUEST_VARIABLE: i32 = 1;
    /// `VIX_VM_CONFIG_RUNTIME_ONLY`.
    pub const VM_CONFIG_RUNTIME_ONLY: i32 = 2;
    /// `VIX_GUEST_ENVIRONMENT_VARIABLE`.
    pub const GUEST_ENVIRONMENT_VARIABLE: i32 = 3;
}

/// Flags of `VixVM_CreateSnapshot` and `VixVM_RemoveSnapshot`.
pub mod snapshot_option {
    /// `VIX_SNAPSHOT_REMOVE_CHILDREN`.
    pub const REMOVE_CHILDREN: i32 = 0x1;
    /// `VIX_SNAPSHOT_INCLUDE_MEMORY`.
    pub const INCLUDE_MEMORY: i32 = 0x2;
}

/// Flags of shared folders (`VixMsgSharedFolderOptions`).
pub mod shared_folder {
    /// `VIX_SHAREDFOLDER_WRITE_ACCESS`.
    pub const WRITE_ACCESS: i32 = 0x4;
}

/// Formats of `VixVM_CaptureScreenImage`.
pub mod capture {
    /// `VIX_CAPTURESCREENFORMAT_PNG`.
    pub const PNG: i32 = 0x1;
    /// `VIX_CAPTURESCREENFORMAT_PNG_NOCOMPRESS`.
    pub const PNG_NOCOMPRESS: i32 = 0x2;
}

/// Values of `VixCloneType`.
pub mod clone_type {
    /// `VIX_CLONETYPE_FULL`.
    pub const FULL: i32 = 0;
    /// `VIX_CLONETYPE_LINKED`.
    pub const LINKED: i32 = 1;
}

/// Flags of `VixVM_InstallTools`.
pub mod install_tools {
    /// `VIX_INSTALLTOOLS_MOUNT_TOOLS_INSTALLER`.
    pub const MOUNT_TOOLS_INSTALLER: i32 = 0x0;
    /// `VIX_INSTALLTOOLS_AUTO_UPGRADE`.
    pub const AUTO_UPGRADE: i32 = 0x1;
    /// `VIX_INSTALLTOOLS_RETURN_IMMEDIATELY`.
    pub const RETURN_IMMEDIATELY: i32 = 0x2;
}

/// Bits of [`property::JOB_RESULT_FILE_FLAGS`](crate::property::JOB_RESULT_FILE_FLAGS).
pub mod file_attribute {
    /// `VIX_FILE_ATTRIBUTES_DIRECTORY`.
    pub const DIRECTORY: i32 = 0x1;
    /// `VIX_FILE_ATTRIBUTES_SYMLINK`.
    pub const SYMLINK: i32 = 0x2;
}

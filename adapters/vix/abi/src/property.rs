//! Properties: what `Vix_GetProperties`, `VixJob_Wait` and property lists name by number.

use crate::property_type;

/// How a property's value travels through a pointer given to a variadic function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `int`, 4 bytes.
    Integer,
    /// `char *`, freed with `Vix_FreeBuffer`.
    String,
    /// `Bool`, 1 byte.
    Bool,
    /// `VixHandle`, 4 bytes; the receiver releases it.
    Handle,
    /// `int64`, 8 bytes.
    Int64,
    /// Two pointers in the argument list: `int *` for the size, then `char **` for the bytes, freed with
    /// `Vix_FreeBuffer`.
    Blob,
}

impl Type {
    /// Its number: one of [`property_type`].
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Integer => property_type::INTEGER,
            Self::String => property_type::STRING,
            Self::Bool => property_type::BOOL,
            Self::Handle => property_type::HANDLE,
            Self::Int64 => property_type::INT64,
            Self::Blob => property_type::BLOB,
        }
    }
}

/// `VIX_PROPERTY_NONE`: ends every list of properties.
pub const NONE: i32 = 0;

macro_rules! properties {
    ($($constant:ident = $id:literal, $name:literal, $kind:ident;)*) => {
        $(#[doc = concat!("`", $name, "`.")] pub const $constant: i32 = $id;)*

        /// How the property with this number travels, if the number is known.
        #[must_use]
        pub const fn type_of(id: i32) -> Option<Type> {
            match id {
                $($id => Some(Type::$kind),)*
                _ => None,
            }
        }

        /// The C name of the property with this number.
        #[must_use]
        pub const fn name(id: i32) -> Option<&'static str> {
            match id {
                $($id => Some($name),)*
                _ => None,
            }
        }
    };
}

properties! {
    META_DATA_CONTAINER = 2, "VIX_PROPERTY_META_DATA_CONTAINER", Handle;
    HOST_HOSTTYPE = 50, "VIX_PROPERTY_HOST_HOSTTYPE", Integer;
    HOST_API_VERSION = 51, "VIX_PROPERTY_HOST_API_VERSION", Integer;
    HOST_SOFTWARE_VERSION = 52, "VIX_PROPERTY_HOST_SOFTWARE_VERSION", String;
    VM_NUM_VCPUS = 101, "VIX_PROPERTY_VM_NUM_VCPUS", Integer;
    VM_VMX_PATHNAME = 103, "VIX_PROPERTY_VM_VMX_PATHNAME", String;
    VM_VMTEAM_PATHNAME = 105, "VIX_PROPERTY_VM_VMTEAM_PATHNAME", String;
    VM_MEMORY_SIZE = 106, "VIX_PROPERTY_VM_MEMORY_SIZE", Integer;
    VM_READ_ONLY = 107, "VIX_PROPERTY_VM_READ_ONLY", Bool;
    VM_NAME = 108, "VIX_PROPERTY_VM_NAME", String;
    VM_GUESTOS = 109, "VIX_PROPERTY_VM_GUESTOS", String;
    VM_IN_VMTEAM = 128, "VIX_PROPERTY_VM_IN_VMTEAM", Bool;
    VM_POWER_STATE = 129, "VIX_PROPERTY_VM_POWER_STATE", Integer;
    VM_TOOLS_STATE = 152, "VIX_PROPERTY_VM_TOOLS_STATE", Integer;
    VM_IS_RUNNING = 196, "VIX_PROPERTY_VM_IS_RUNNING", Bool;
    VM_SUPPORTED_FEATURES = 197, "VIX_PROPERTY_VM_SUPPORTED_FEATURES", Integer;
    VM_SSL_ERROR = 293, "VIX_PROPERTY_VM_SSL_ERROR", Bool;
    JOB_RESULT_ERROR_CODE = 3000, "VIX_PROPERTY_JOB_RESULT_ERROR_CODE", Int64;
    JOB_RESULT_VM_IN_GROUP = 3001, "VIX_PROPERTY_JOB_RESULT_VM_IN_GROUP", String;
    JOB_RESULT_USER_MESSAGE = 3002, "VIX_PROPERTY_JOB_RESULT_USER_MESSAGE", String;
    JOB_RESULT_EXIT_CODE = 3004, "VIX_PROPERTY_JOB_RESULT_EXIT_CODE", Integer;
    JOB_RESULT_COMMAND_OUTPUT = 3005, "VIX_PROPERTY_JOB_RESULT_COMMAND_OUTPUT", String;
    JOB_RESULT_HANDLE = 3010, "VIX_PROPERTY_JOB_RESULT_HANDLE", Handle;
    JOB_RESULT_GUEST_OBJECT_EXISTS = 3011, "VIX_PROPERTY_JOB_RESULT_GUEST_OBJECT_EXISTS", Bool;
    JOB_RESULT_GUEST_PROGRAM_ELAPSED_TIME = 3017, "VIX_PROPERTY_JOB_RESULT_GUEST_PROGRAM_ELAPSED_TIME", Integer;
    JOB_RESULT_GUEST_PROGRAM_EXIT_CODE = 3018, "VIX_PROPERTY_JOB_RESULT_GUEST_PROGRAM_EXIT_CODE", Integer;
    JOB_RESULT_ITEM_NAME = 3035, "VIX_PROPERTY_JOB_RESULT_ITEM_NAME", String;
    JOB_RESULT_FOUND_ITEM_DESCRIPTION = 3036, "VIX_PROPERTY_JOB_RESULT_FOUND_ITEM_DESCRIPTION", String;
    JOB_RESULT_SHARED_FOLDER_COUNT = 3046, "VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_COUNT", Integer;
    JOB_RESULT_SHARED_FOLDER_HOST = 3048, "VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_HOST", String;
    JOB_RESULT_SHARED_FOLDER_FLAGS = 3049, "VIX_PROPERTY_JOB_RESULT_SHARED_FOLDER_FLAGS", Integer;
    JOB_RESULT_PROCESS_ID = 3051, "VIX_PROPERTY_JOB_RESULT_PROCESS_ID", Int64;
    JOB_RESULT_PROCESS_OWNER = 3052, "VIX_PROPERTY_JOB_RESULT_PROCESS_OWNER", String;
    JOB_RESULT_PROCESS_COMMAND = 3053, "VIX_PROPERTY_JOB_RESULT_PROCESS_COMMAND", String;
    JOB_RESULT_FILE_FLAGS = 3054, "VIX_PROPERTY_JOB_RESULT_FILE_FLAGS", Integer;
    JOB_RESULT_PROCESS_START_TIME = 3055, "VIX_PROPERTY_JOB_RESULT_PROCESS_START_TIME", Integer;
    JOB_RESULT_VM_VARIABLE_STRING = 3056, "VIX_PROPERTY_JOB_RESULT_VM_VARIABLE_STRING", String;
    JOB_RESULT_PROCESS_BEING_DEBUGGED = 3057, "VIX_PROPERTY_JOB_RESULT_PROCESS_BEING_DEBUGGED", Bool;
    JOB_RESULT_SCREEN_IMAGE_SIZE = 3058, "VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_SIZE", Integer;
    JOB_RESULT_SCREEN_IMAGE_DATA = 3059, "VIX_PROPERTY_JOB_RESULT_SCREEN_IMAGE_DATA", Blob;
    JOB_RESULT_FILE_SIZE = 3061, "VIX_PROPERTY_JOB_RESULT_FILE_SIZE", Int64;
    JOB_RESULT_FILE_MOD_TIME = 3062, "VIX_PROPERTY_JOB_RESULT_FILE_MOD_TIME", Int64;
    JOB_RESULT_EXTRA_ERROR_INFO = 3084, "VIX_PROPERTY_JOB_RESULT_EXTRA_ERROR_INFO", String;
    FOUND_ITEM_LOCATION = 4010, "VIX_PROPERTY_FOUND_ITEM_LOCATION", String;
    SNAPSHOT_DISPLAYNAME = 4200, "VIX_PROPERTY_SNAPSHOT_DISPLAYNAME", String;
    SNAPSHOT_DESCRIPTION = 4201, "VIX_PROPERTY_SNAPSHOT_DESCRIPTION", String;
    SNAPSHOT_POWERSTATE = 4205, "VIX_PROPERTY_SNAPSHOT_POWERSTATE", Integer;
    GUEST_SHAREDFOLDERS_SHARES_PATH = 4525, "VIX_PROPERTY_GUEST_SHAREDFOLDERS_SHARES_PATH", String;
    VM_ENCRYPTION_PASSWORD = 7001, "VIX_PROPERTY_VM_ENCRYPTION_PASSWORD", String;
}

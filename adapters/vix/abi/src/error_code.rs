//! `VixError`: 64 bits, of which the low 16 are the code. Always compare [`of`]`(error)` with a code, never the whole.
//!
//! ```text
//!   63            32 31          24 23     16 15            0
//!  +----------------+--------------+---------+---------------+
//!  |  extra error   |  extra type  |  flags  |     code      |
//!  +----------------+--------------+---------+---------------+
//! ```
//!
//! The layout is that of open-vm-tools' `vixOpenSource.h`. The texts are our own.

use core::ffi::CStr;

use crate::Error;

/// Flag: the error comes from the guest.
pub const FLAG_GUEST: u8 = 1;
/// Flag: the error comes from a remote host.
pub const FLAG_REMOTE: u8 = 2;

/// What the extra error is a number of: type 4 is an `errno` of Linux.
pub const EXTRA_LINUX: u8 = 4;
/// What the extra error is a number of: type 3 is an error of Windows.
pub const EXTRA_WINDOWS: u8 = 3;

/// The code of an error.
#[must_use]
pub const fn of(error: Error) -> u16 {
    error as u16
}

/// The flags of an error: [`FLAG_GUEST`], [`FLAG_REMOTE`].
#[must_use]
pub const fn flags(error: Error) -> u8 {
    (error >> 16) as u8
}

/// What the extra error of an error is a number of; 0: there is none.
#[must_use]
pub const fn extra_type(error: Error) -> u8 {
    (error >> 24) as u8
}

/// The extra error of an error.
#[must_use]
pub const fn extra(error: Error) -> u32 {
    (error >> 32) as u32
}

/// An error of all its parts.
#[must_use]
pub const fn with_parts(code: u16, flags: u8, extra_type: u8, extra: u32) -> Error {
    (code as u64) | (flags as u64) << 16 | (extra_type as u64) << 24 | (extra as u64) << 32
}

macro_rules! codes {
    ($($constant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        $(#[doc = concat!("`", $name, "`.")] pub const $constant: u16 = $code;)*

        /// Every code that has a name, in rising order.
        pub const ALL: &[u16] = &[$($code),*];

        /// The C name of a code: `VIX_E_...`.
        #[must_use]
        pub const fn name(code: u16) -> Option<&'static str> {
            match code {
                $($code => Some($name),)*
                _ => None,
            }
        }

        /// What a code means, in English.
        #[must_use]
        pub const fn text(code: u16) -> Option<&'static CStr> {
            match code {
                $($code => Some($text),)*
                _ => None,
            }
        }
    };
}

codes! {
    OK = 0, "VIX_OK", c"The operation was successful";
    FAIL = 1, "VIX_E_FAIL", c"Unknown error";
    OUT_OF_MEMORY = 2, "VIX_E_OUT_OF_MEMORY", c"Memory allocation failed; out of memory";
    INVALID_ARG = 3, "VIX_E_INVALID_ARG", c"One of the parameters was invalid";
    FILE_NOT_FOUND = 4, "VIX_E_FILE_NOT_FOUND", c"A file was not found";
    OBJECT_IS_BUSY = 5, "VIX_E_OBJECT_IS_BUSY", c"The object is in use by another operation";
    NOT_SUPPORTED = 6, "VIX_E_NOT_SUPPORTED", c"The operation is not supported by this product";
    FILE_ERROR = 7, "VIX_E_FILE_ERROR", c"A file could not be read or written on the host";
    DISK_FULL = 8, "VIX_E_DISK_FULL", c"The file system is full";
    INCORRECT_FILE_TYPE = 9, "VIX_E_INCORRECT_FILE_TYPE", c"A file has the wrong type";
    CANCELLED = 10, "VIX_E_CANCELLED", c"The operation was cancelled";
    FILE_READ_ONLY = 11, "VIX_E_FILE_READ_ONLY", c"The file is write-protected";
    FILE_ALREADY_EXISTS = 12, "VIX_E_FILE_ALREADY_EXISTS", c"The file already exists";
    FILE_ACCESS_ERROR = 13, "VIX_E_FILE_ACCESS_ERROR", c"You do not have access rights to this file";
    REQUIRES_LARGE_FILES = 14, "VIX_E_REQUIRES_LARGE_FILES", c"The file system does not support files of this size";
    FILE_ALREADY_LOCKED = 15, "VIX_E_FILE_ALREADY_LOCKED", c"The file is already in use";
    VMDB = 16, "VIX_E_VMDB", c"The system returned an error; the connection to the virtual machine may be broken";
    NOT_SUPPORTED_ON_REMOTE_OBJECT = 20, "VIX_E_NOT_SUPPORTED_ON_REMOTE_OBJECT", c"The operation is not supported on remote objects";
    FILE_TOO_BIG = 21, "VIX_E_FILE_TOO_BIG", c"The file is too big for the file system it goes to";
    FILE_NAME_INVALID = 22, "VIX_E_FILE_NAME_INVALID", c"The file name is not valid";
    ALREADY_EXISTS = 23, "VIX_E_ALREADY_EXISTS", c"It already exists";
    BUFFER_TOOSMALL = 24, "VIX_E_BUFFER_TOOSMALL", c"The buffer is too small";
    OBJECT_NOT_FOUND = 25, "VIX_E_OBJECT_NOT_FOUND", c"The object was not found";
    HOST_NOT_CONNECTED = 26, "VIX_E_HOST_NOT_CONNECTED", c"The host is not connected";
    INVALID_UTF8_STRING = 27, "VIX_E_INVALID_UTF8_STRING", c"The string is not valid UTF-8";
    UNFINISHED_JOB = 29, "VIX_E_UNFINISHED_JOB", c"The job has not finished yet";
    NEED_KEY = 30, "VIX_E_NEED_KEY", c"A decryption key is needed";
    OPERATION_ALREADY_IN_PROGRESS = 31, "VIX_E_OPERATION_ALREADY_IN_PROGRESS", c"Such an operation is already in progress";
    LICENSE = 32, "VIX_E_LICENSE", c"The licence does not allow the operation, or has expired";
    VM_HOST_DISCONNECTED = 34, "VIX_E_VM_HOST_DISCONNECTED", c"The host of the virtual machine is disconnected";
    AUTHENTICATION_FAIL = 35, "VIX_E_AUTHENTICATION_FAIL", c"The user name or the password is wrong on the host";
    HOST_CONNECTION_LOST = 36, "VIX_E_HOST_CONNECTION_LOST", c"The connection to the host was lost";
    DUPLICATE_NAME = 41, "VIX_E_DUPLICATE_NAME", c"The name is already in use";
    ARGUMENT_TOO_BIG = 44, "VIX_E_ARGUMENT_TOO_BIG", c"The argument is too big";
    INVALID_HANDLE = 1000, "VIX_E_INVALID_HANDLE", c"The handle is not a valid VIX object";
    NOT_SUPPORTED_ON_HANDLE_TYPE = 1001, "VIX_E_NOT_SUPPORTED_ON_HANDLE_TYPE", c"The operation is not supported on this type of handle";
    TOO_MANY_HANDLES = 1002, "VIX_E_TOO_MANY_HANDLES", c"Too many handles are open";
    NOT_FOUND = 2000, "VIX_E_NOT_FOUND", c"Not found: a required section or object is missing";
    TYPE_MISMATCH = 2001, "VIX_E_TYPE_MISMATCH", c"An object has another type than expected";
    INVALID_XML = 2002, "VIX_E_INVALID_XML", c"The file contains invalid XML";
    TIMEOUT_WAITING_FOR_TOOLS = 3000, "VIX_E_TIMEOUT_WAITING_FOR_TOOLS", c"Timed out while waiting for Tools in the guest";
    UNRECOGNIZED_COMMAND = 3001, "VIX_E_UNRECOGNIZED_COMMAND", c"The command is not recognised by the virtual machine";
    OP_NOT_SUPPORTED_ON_GUEST = 3003, "VIX_E_OP_NOT_SUPPORTED_ON_GUEST", c"The operation is not supported on this guest operating system";
    PROGRAM_NOT_STARTED = 3004, "VIX_E_PROGRAM_NOT_STARTED", c"The program was not started in the guest";
    CANNOT_START_READ_ONLY_VM = 3005, "VIX_E_CANNOT_START_READ_ONLY_VM", c"A read-only virtual machine cannot be powered on";
    VM_NOT_RUNNING = 3006, "VIX_E_VM_NOT_RUNNING", c"The virtual machine is not running";
    VM_IS_RUNNING = 3007, "VIX_E_VM_IS_RUNNING", c"The virtual machine must not be running for this operation";
    CANNOT_CONNECT_TO_VM = 3008, "VIX_E_CANNOT_CONNECT_TO_VM", c"Cannot connect to the virtual machine";
    POWEROP_SCRIPTS_NOT_AVAILABLE = 3009, "VIX_E_POWEROP_SCRIPTS_NOT_AVAILABLE", c"Power operation scripts are not available in the guest yet";
    NO_GUEST_OS_INSTALLED = 3010, "VIX_E_NO_GUEST_OS_INSTALLED", c"No operating system is installed in the virtual machine";
    VM_INSUFFICIENT_HOST_MEMORY = 3011, "VIX_E_VM_INSUFFICIENT_HOST_MEMORY", c"Not enough memory on the host for the virtual machine";
    SUSPEND_ERROR = 3012, "VIX_E_SUSPEND_ERROR", c"The virtual machine could not be suspended";
    VM_NOT_ENOUGH_CPUS = 3013, "VIX_E_VM_NOT_ENOUGH_CPUS", c"The host has fewer processors than the virtual machine is configured for";
    HOST_USER_PERMISSIONS = 3014, "VIX_E_HOST_USER_PERMISSIONS", c"Insufficient permissions on the host";
    GUEST_USER_PERMISSIONS = 3015, "VIX_E_GUEST_USER_PERMISSIONS", c"Authentication failure or insufficient permissions in the guest";
    TOOLS_NOT_RUNNING = 3016, "VIX_E_TOOLS_NOT_RUNNING", c"Tools are not running in the guest";
    GUEST_OPERATIONS_PROHIBITED = 3017, "VIX_E_GUEST_OPERATIONS_PROHIBITED", c"Guest operations are not allowed on this virtual machine";
    ANON_GUEST_OPERATIONS_PROHIBITED = 3018, "VIX_E_ANON_GUEST_OPERATIONS_PROHIBITED", c"Anonymous guest operations are not allowed on this virtual machine; log in first";
    ROOT_GUEST_OPERATIONS_PROHIBITED = 3019, "VIX_E_ROOT_GUEST_OPERATIONS_PROHIBITED", c"Guest operations are not allowed for the administrative user";
    MISSING_ANON_GUEST_ACCOUNT = 3023, "VIX_E_MISSING_ANON_GUEST_ACCOUNT", c"The account for anonymous guest operations is missing in the guest";
    CANNOT_AUTHENTICATE_WITH_GUEST = 3024, "VIX_E_CANNOT_AUTHENTICATE_WITH_GUEST", c"Cannot authenticate users with the guest";
    UNRECOGNIZED_COMMAND_IN_GUEST = 3025, "VIX_E_UNRECOGNIZED_COMMAND_IN_GUEST", c"The command is not recognised by Tools in the guest";
    CONSOLE_GUEST_OPERATIONS_PROHIBITED = 3026, "VIX_E_CONSOLE_GUEST_OPERATIONS_PROHIBITED", c"Guest operations are not allowed for the console user";
    MUST_BE_CONSOLE_USER = 3027, "VIX_E_MUST_BE_CONSOLE_USER", c"Only the console user can run this command";
    VMX_MSG_DIALOG_AND_NO_UI = 3028, "VIX_E_VMX_MSG_DIALOG_AND_NO_UI", c"The virtual machine waits for an answer and there is no user interface to give it";
    OPERATION_NOT_ALLOWED_FOR_LOGIN_TYPE = 3031, "VIX_E_OPERATION_NOT_ALLOWED_FOR_LOGIN_TYPE", c"The operation is not allowed for this type of log-in";
    LOGIN_TYPE_NOT_SUPPORTED = 3032, "VIX_E_LOGIN_TYPE_NOT_SUPPORTED", c"This type of log-in is not supported by the guest";
    EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST = 3033, "VIX_E_EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST", c"The guest does not accept empty passwords";
    INTERACTIVE_SESSION_NOT_PRESENT = 3034, "VIX_E_INTERACTIVE_SESSION_NOT_PRESENT", c"There is no interactive session in the guest";
    INTERACTIVE_SESSION_USER_MISMATCH = 3035, "VIX_E_INTERACTIVE_SESSION_USER_MISMATCH", c"The interactive session belongs to another user";
    CANNOT_POWER_ON_VM = 3041, "VIX_E_CANNOT_POWER_ON_VM", c"The virtual machine could not be powered on";
    NO_DISPLAY_SERVER = 3043, "VIX_E_NO_DISPLAY_SERVER", c"No display server is running in the guest";
    TOO_MANY_LOGONS = 3046, "VIX_E_TOO_MANY_LOGONS", c"Too many users are logged in to the guest";
    INVALID_AUTHENTICATION_SESSION = 3047, "VIX_E_INVALID_AUTHENTICATION_SESSION", c"The authentication session is not valid";
    VM_NOT_FOUND = 4000, "VIX_E_VM_NOT_FOUND", c"The virtual machine was not found";
    NOT_SUPPORTED_FOR_VM_VERSION = 4001, "VIX_E_NOT_SUPPORTED_FOR_VM_VERSION", c"The operation is not supported for this version of virtual machine";
    CANNOT_READ_VM_CONFIG = 4002, "VIX_E_CANNOT_READ_VM_CONFIG", c"The virtual machine's configuration could not be read";
    TEMPLATE_VM = 4003, "VIX_E_TEMPLATE_VM", c"The operation is not possible on a template";
    VM_ALREADY_LOADED = 4004, "VIX_E_VM_ALREADY_LOADED", c"The virtual machine is loaded already";
    VM_ALREADY_UP_TO_DATE = 4006, "VIX_E_VM_ALREADY_UP_TO_DATE", c"The virtual machine is up to date already";
    VM_UNSUPPORTED_GUEST = 4011, "VIX_E_VM_UNSUPPORTED_GUEST", c"The guest operating system is not supported";
    UNRECOGNIZED_PROPERTY = 6000, "VIX_E_UNRECOGNIZED_PROPERTY", c"The property is not known for this handle";
    INVALID_PROPERTY_VALUE = 6001, "VIX_E_INVALID_PROPERTY_VALUE", c"The property's value is not valid";
    READ_ONLY_PROPERTY = 6002, "VIX_E_READ_ONLY_PROPERTY", c"The property cannot be written";
    MISSING_REQUIRED_PROPERTY = 6003, "VIX_E_MISSING_REQUIRED_PROPERTY", c"A required property is missing";
    INVALID_SERIALIZED_DATA = 6004, "VIX_E_INVALID_SERIALIZED_DATA", c"Serialised data is damaged";
    PROPERTY_TYPE_MISMATCH = 6005, "VIX_E_PROPERTY_TYPE_MISMATCH", c"The property has another type";
    BAD_VM_INDEX = 8000, "VIX_E_BAD_VM_INDEX", c"There is no virtual machine with this index";
    INVALID_MESSAGE_HEADER = 10000, "VIX_E_INVALID_MESSAGE_HEADER", c"A message header is not valid";
    INVALID_MESSAGE_BODY = 10001, "VIX_E_INVALID_MESSAGE_BODY", c"A message body is not valid";
    SNAPSHOT_INVAL = 13000, "VIX_E_SNAPSHOT_INVAL", c"The snapshot is not valid";
    SNAPSHOT_DUMPER = 13001, "VIX_E_SNAPSHOT_DUMPER", c"The snapshot file could not be written";
    SNAPSHOT_DISKLIB = 13002, "VIX_E_SNAPSHOT_DISKLIB", c"A snapshot's disk failed";
    SNAPSHOT_NOTFOUND = 13003, "VIX_E_SNAPSHOT_NOTFOUND", c"The snapshot does not exist";
    SNAPSHOT_EXISTS = 13004, "VIX_E_SNAPSHOT_EXISTS", c"The snapshot exists already";
    SNAPSHOT_VERSION = 13005, "VIX_E_SNAPSHOT_VERSION", c"Snapshots are not supported in this version of virtual machine";
    SNAPSHOT_NOPERM = 13006, "VIX_E_SNAPSHOT_NOPERM", c"Insufficient permissions for the snapshot";
    SNAPSHOT_CONFIG = 13007, "VIX_E_SNAPSHOT_CONFIG", c"The snapshot's configuration is not valid";
    SNAPSHOT_NOCHANGE = 13008, "VIX_E_SNAPSHOT_NOCHANGE", c"Nothing has changed since the snapshot";
    SNAPSHOT_CHECKPOINT = 13009, "VIX_E_SNAPSHOT_CHECKPOINT", c"The state of the running virtual machine could not be saved";
    SNAPSHOT_LOCKED = 13010, "VIX_E_SNAPSHOT_LOCKED", c"The snapshot is locked";
    SNAPSHOT_INCONSISTENT = 13011, "VIX_E_SNAPSHOT_INCONSISTENT", c"The snapshots are inconsistent with each other";
    SNAPSHOT_NAMETOOLONG = 13012, "VIX_E_SNAPSHOT_NAMETOOLONG", c"The snapshot's name is too long";
    SNAPSHOT_VIXFILE = 13013, "VIX_E_SNAPSHOT_VIXFILE", c"The snapshot's description cannot be read by this version";
    SNAPSHOT_DISKLOCKED = 13014, "VIX_E_SNAPSHOT_DISKLOCKED", c"A disk of the snapshot is locked";
    SNAPSHOT_DUPLICATEDDISK = 13015, "VIX_E_SNAPSHOT_DUPLICATEDDISK", c"A disk occurs twice in the snapshot";
    SNAPSHOT_INDEPENDENTDISK = 13016, "VIX_E_SNAPSHOT_INDEPENDENTDISK", c"A disk is independent of snapshots";
    SNAPSHOT_NONUNIQUE_NAME = 13017, "VIX_E_SNAPSHOT_NONUNIQUE_NAME", c"The name of the snapshot is not unique";
    SNAPSHOT_MEMORY_ON_INDEPENDENT_DISK = 13018, "VIX_E_SNAPSHOT_MEMORY_ON_INDEPENDENT_DISK", c"Memory cannot be kept with an independent disk";
    SNAPSHOT_MAXSNAPSHOTS = 13019, "VIX_E_SNAPSHOT_MAXSNAPSHOTS", c"There are as many snapshots as are allowed";
    SNAPSHOT_MIN_FREE_SPACE = 13020, "VIX_E_SNAPSHOT_MIN_FREE_SPACE", c"Not enough free space for a snapshot";
    SNAPSHOT_HIERARCHY_TOODEEP = 13021, "VIX_E_SNAPSHOT_HIERARCHY_TOODEEP", c"The snapshots are nested too deeply";
    SNAPSHOT_NOT_REVERTABLE = 13024, "VIX_E_SNAPSHOT_NOT_REVERTABLE", c"This snapshot cannot be reverted to";
    HOST_DISK_INVALID_VALUE = 14003, "VIX_E_HOST_DISK_INVALID_VALUE", c"A disk's parameter on the host is not valid";
    HOST_DISK_SECTORSIZE = 14004, "VIX_E_HOST_DISK_SECTORSIZE", c"The sector size of a disk on the host is not valid";
    HOST_FILE_ERROR_EOF = 14005, "VIX_E_HOST_FILE_ERROR_EOF", c"A file on the host ended too early";
    HOST_NETBLKDEV_HANDSHAKE = 14006, "VIX_E_HOST_NETBLKDEV_HANDSHAKE", c"The handshake with a network disk on the host failed";
    HOST_SOCKET_CREATION_ERROR = 14007, "VIX_E_HOST_SOCKET_CREATION_ERROR", c"A socket could not be made on the host";
    HOST_SERVER_NOT_FOUND = 14008, "VIX_E_HOST_SERVER_NOT_FOUND", c"The server was not found";
    HOST_NETWORK_CONN_REFUSED = 14009, "VIX_E_HOST_NETWORK_CONN_REFUSED", c"The server refused the connection";
    HOST_TCP_SOCKET_ERROR = 14010, "VIX_E_HOST_TCP_SOCKET_ERROR", c"A TCP socket failed";
    HOST_TCP_CONN_LOST = 14011, "VIX_E_HOST_TCP_CONN_LOST", c"The TCP connection was lost";
    HOST_NBD_HASHFILE_VOLUME = 14012, "VIX_E_HOST_NBD_HASHFILE_VOLUME", c"The volume of a network disk's hash file is wrong";
    HOST_NBD_HASHFILE_INIT = 14013, "VIX_E_HOST_NBD_HASHFILE_INIT", c"A network disk's hash file could not be set up";
    HOST_SERVER_SHUTDOWN = 14014, "VIX_E_HOST_SERVER_SHUTDOWN", c"The server is shutting down";
    HOST_SERVER_NOT_AVAILABLE = 14015, "VIX_E_HOST_SERVER_NOT_AVAILABLE", c"The server is not available";
    DISK_INVAL = 16000, "VIX_E_DISK_INVAL", c"Virtual disk: invalid";
    DISK_NOINIT = 16001, "VIX_E_DISK_NOINIT", c"Virtual disk: not initialised";
    DISK_NOIO = 16002, "VIX_E_DISK_NOIO", c"Virtual disk: no input or output possible";
    DISK_PARTIALCHAIN = 16003, "VIX_E_DISK_PARTIALCHAIN", c"Virtual disk: the chain of disks is incomplete";
    DISK_NEEDSREPAIR = 16006, "VIX_E_DISK_NEEDSREPAIR", c"Virtual disk: needs repair";
    DISK_OUTOFRANGE = 16007, "VIX_E_DISK_OUTOFRANGE", c"Virtual disk: out of range";
    DISK_CID_MISMATCH = 16008, "VIX_E_DISK_CID_MISMATCH", c"Virtual disk: the parent has been changed";
    DISK_CANTSHRINK = 16009, "VIX_E_DISK_CANTSHRINK", c"Virtual disk: cannot be shrunk";
    DISK_PARTMISMATCH = 16010, "VIX_E_DISK_PARTMISMATCH", c"Virtual disk: partitions do not match";
    DISK_UNSUPPORTEDDISKVERSION = 16011, "VIX_E_DISK_UNSUPPORTEDDISKVERSION", c"Virtual disk: unsupported version of disk";
    DISK_OPENPARENT = 16012, "VIX_E_DISK_OPENPARENT", c"Virtual disk: the parent cannot be opened";
    DISK_NOTSUPPORTED = 16013, "VIX_E_DISK_NOTSUPPORTED", c"Virtual disk: not supported";
    DISK_NEEDKEY = 16014, "VIX_E_DISK_NEEDKEY", c"Virtual disk: a key is needed";
    DISK_NOKEYOVERRIDE = 16015, "VIX_E_DISK_NOKEYOVERRIDE", c"Virtual disk: the key cannot be replaced";
    DISK_NOTENCRYPTED = 16016, "VIX_E_DISK_NOTENCRYPTED", c"Virtual disk: not encrypted";
    DISK_NOKEY = 16017, "VIX_E_DISK_NOKEY", c"Virtual disk: no key";
    DISK_INVALIDPARTITIONTABLE = 16018, "VIX_E_DISK_INVALIDPARTITIONTABLE", c"Virtual disk: the partition table is not valid";
    DISK_NOTNORMAL = 16019, "VIX_E_DISK_NOTNORMAL", c"Virtual disk: not a normal disk";
    DISK_NOTENCDESC = 16020, "VIX_E_DISK_NOTENCDESC", c"Virtual disk: the descriptor is not encrypted";
    DISK_NEEDVMFS = 16022, "VIX_E_DISK_NEEDVMFS", c"Virtual disk: needs VMFS";
    DISK_RAWTOOBIG = 16024, "VIX_E_DISK_RAWTOOBIG", c"Virtual disk: the raw disk is too big";
    DISK_TOOMANYOPENFILES = 16027, "VIX_E_DISK_TOOMANYOPENFILES", c"Virtual disk: too many open files";
    DISK_TOOMANYREDO = 16028, "VIX_E_DISK_TOOMANYREDO", c"Virtual disk: too many redo logs";
    DISK_RAWTOOSMALL = 16029, "VIX_E_DISK_RAWTOOSMALL", c"Virtual disk: the raw disk is too small";
    DISK_INVALIDCHAIN = 16030, "VIX_E_DISK_INVALIDCHAIN", c"Virtual disk: the chain of disks is not valid";
    DISK_KEY_NOTFOUND = 16052, "VIX_E_DISK_KEY_NOTFOUND", c"Virtual disk: the key was not found";
    DISK_SUBSYSTEM_INIT_FAIL = 16053, "VIX_E_DISK_SUBSYSTEM_INIT_FAIL", c"Virtual disk: the subsystem could not be initialised";
    DISK_INVALID_CONNECTION = 16054, "VIX_E_DISK_INVALID_CONNECTION", c"Virtual disk: invalid connection";
    DISK_ENCODING = 16061, "VIX_E_DISK_ENCODING", c"Virtual disk: the encoding is not valid";
    DISK_CANTREPAIR = 16062, "VIX_E_DISK_CANTREPAIR", c"Virtual disk: cannot be repaired";
    DISK_INVALIDDISK = 16063, "VIX_E_DISK_INVALIDDISK", c"Virtual disk: the disk is not valid";
    DISK_NOLICENSE = 16064, "VIX_E_DISK_NOLICENSE", c"Virtual disk: no licence";
    DISK_NODEVICE = 16065, "VIX_E_DISK_NODEVICE", c"Virtual disk: no such device";
    DISK_UNSUPPORTEDDEVICE = 16066, "VIX_E_DISK_UNSUPPORTEDDEVICE", c"Virtual disk: unsupported device";
    DISK_CAPACITY_MISMATCH = 16067, "VIX_E_DISK_CAPACITY_MISMATCH", c"Virtual disk: capacities do not match";
    DISK_PARENT_NOTALLOWED = 16068, "VIX_E_DISK_PARENT_NOTALLOWED", c"Virtual disk: a parent is not allowed";
    DISK_ATTACH_ROOTLINK = 16069, "VIX_E_DISK_ATTACH_ROOTLINK", c"Virtual disk: a root link cannot be attached";
    CRYPTO_UNKNOWN_ALGORITHM = 17000, "VIX_E_CRYPTO_UNKNOWN_ALGORITHM", c"Encryption: unknown algorithm";
    CRYPTO_BAD_BUFFER_SIZE = 17001, "VIX_E_CRYPTO_BAD_BUFFER_SIZE", c"Encryption: bad buffer size";
    CRYPTO_INVALID_OPERATION = 17002, "VIX_E_CRYPTO_INVALID_OPERATION", c"Encryption: invalid operation";
    CRYPTO_RANDOM_DEVICE = 17003, "VIX_E_CRYPTO_RANDOM_DEVICE", c"Encryption: the random device failed";
    CRYPTO_NEED_PASSWORD = 17004, "VIX_E_CRYPTO_NEED_PASSWORD", c"Encryption: a password is needed";
    CRYPTO_BAD_PASSWORD = 17005, "VIX_E_CRYPTO_BAD_PASSWORD", c"Encryption: bad password";
    CRYPTO_NOT_IN_DICTIONARY = 17006, "VIX_E_CRYPTO_NOT_IN_DICTIONARY", c"Encryption: not in dictionary";
    CRYPTO_NO_CRYPTO = 17007, "VIX_E_CRYPTO_NO_CRYPTO", c"Encryption: not available";
    CRYPTO_ERROR = 17008, "VIX_E_CRYPTO_ERROR", c"Encryption failed";
    CRYPTO_BAD_FORMAT = 17009, "VIX_E_CRYPTO_BAD_FORMAT", c"Encryption: bad format";
    CRYPTO_LOCKED = 17010, "VIX_E_CRYPTO_LOCKED", c"Encryption: locked";
    CRYPTO_EMPTY = 17011, "VIX_E_CRYPTO_EMPTY", c"Encryption: empty";
    CRYPTO_KEYSAFE_LOCATOR = 17012, "VIX_E_CRYPTO_KEYSAFE_LOCATOR", c"Encryption: the key safe's locator is not valid";
    CANNOT_CONNECT_TO_HOST = 18000, "VIX_E_CANNOT_CONNECT_TO_HOST", c"Cannot connect to the host";
    NOT_FOR_REMOTE_HOST = 18001, "VIX_E_NOT_FOR_REMOTE_HOST", c"The operation is not for remote hosts";
    INVALID_HOSTNAME_SPECIFICATION = 18002, "VIX_E_INVALID_HOSTNAME_SPECIFICATION", c"The host name is not valid";
    SCREEN_CAPTURE_ERROR = 19000, "VIX_E_SCREEN_CAPTURE_ERROR", c"The screen could not be captured";
    SCREEN_CAPTURE_BAD_FORMAT = 19001, "VIX_E_SCREEN_CAPTURE_BAD_FORMAT", c"The screen cannot be captured in this format";
    SCREEN_CAPTURE_COMPRESSION_FAIL = 19002, "VIX_E_SCREEN_CAPTURE_COMPRESSION_FAIL", c"The picture of the screen could not be compressed";
    SCREEN_CAPTURE_LARGE_DATA = 19003, "VIX_E_SCREEN_CAPTURE_LARGE_DATA", c"The picture of the screen is too large";
    GUEST_VOLUMES_NOT_FROZEN = 20000, "VIX_E_GUEST_VOLUMES_NOT_FROZEN", c"The guest's volumes could not be frozen";
    NOT_A_FILE = 20001, "VIX_E_NOT_A_FILE", c"The object is not a file";
    NOT_A_DIRECTORY = 20002, "VIX_E_NOT_A_DIRECTORY", c"The object is not a directory";
    NO_SUCH_PROCESS = 20003, "VIX_E_NO_SUCH_PROCESS", c"No such process";
    FILE_NAME_TOO_LONG = 20004, "VIX_E_FILE_NAME_TOO_LONG", c"The file name is too long";
    OPERATION_DISABLED = 20005, "VIX_E_OPERATION_DISABLED", c"The operation is disabled in the guest";
    DIRECTORY_NOT_EMPTY = 20006, "VIX_E_DIRECTORY_NOT_EMPTY", c"The directory is not empty";
    TOOLS_INSTALL_NO_IMAGE = 21000, "VIX_E_TOOLS_INSTALL_NO_IMAGE", c"There is no Tools image for this guest";
    TOOLS_INSTALL_IMAGE_INACCESIBLE = 21001, "VIX_E_TOOLS_INSTALL_IMAGE_INACCESIBLE", c"The Tools image is not accessible";
    TOOLS_INSTALL_NO_DEVICE = 21002, "VIX_E_TOOLS_INSTALL_NO_DEVICE", c"The virtual machine has no device for the Tools image";
    TOOLS_INSTALL_DEVICE_NOT_CONNECTED = 21003, "VIX_E_TOOLS_INSTALL_DEVICE_NOT_CONNECTED", c"The device for the Tools image is not connected";
    TOOLS_INSTALL_CANCELLED = 21004, "VIX_E_TOOLS_INSTALL_CANCELLED", c"The installation of Tools was cancelled";
    TOOLS_INSTALL_INIT_FAILED = 21005, "VIX_E_TOOLS_INSTALL_INIT_FAILED", c"The installation of Tools could not be started";
    TOOLS_INSTALL_AUTO_NOT_SUPPORTED = 21006, "VIX_E_TOOLS_INSTALL_AUTO_NOT_SUPPORTED", c"Tools cannot be installed automatically in this guest";
    TOOLS_INSTALL_GUEST_NOT_READY = 21007, "VIX_E_TOOLS_INSTALL_GUEST_NOT_READY", c"The guest is not ready for the installation of Tools";
    TOOLS_INSTALL_SIG_CHECK_FAILED = 21008, "VIX_E_TOOLS_INSTALL_SIG_CHECK_FAILED", c"The signature of the Tools installer is wrong";
    TOOLS_INSTALL_ERROR = 21009, "VIX_E_TOOLS_INSTALL_ERROR", c"The installation of Tools failed";
    TOOLS_INSTALL_ALREADY_UP_TO_DATE = 21010, "VIX_E_TOOLS_INSTALL_ALREADY_UP_TO_DATE", c"Tools are up to date already";
    TOOLS_INSTALL_IN_PROGRESS = 21011, "VIX_E_TOOLS_INSTALL_IN_PROGRESS", c"An installation of Tools is in progress";
    TOOLS_INSTALL_IMAGE_COPY_FAILED = 21012, "VIX_E_TOOLS_INSTALL_IMAGE_COPY_FAILED", c"The Tools image could not be copied";
    WRAPPER_WORKSTATION_NOT_INSTALLED = 22001, "VIX_E_WRAPPER_WORKSTATION_NOT_INSTALLED", c"Workstation is not installed";
    WRAPPER_VERSION_NOT_FOUND = 22002, "VIX_E_WRAPPER_VERSION_NOT_FOUND", c"The specified version of the product was not found";
    WRAPPER_SERVICEPROVIDER_NOT_FOUND = 22003, "VIX_E_WRAPPER_SERVICEPROVIDER_NOT_FOUND", c"The specified service provider was not found";
    WRAPPER_PLAYER_NOT_INSTALLED = 22004, "VIX_E_WRAPPER_PLAYER_NOT_INSTALLED", c"Player is not installed";
    WRAPPER_RUNTIME_NOT_INSTALLED = 22005, "VIX_E_WRAPPER_RUNTIME_NOT_INSTALLED", c"The VIX runtime is not installed";
    WRAPPER_MULTIPLE_SERVICEPROVIDERS = 22006, "VIX_E_WRAPPER_MULTIPLE_SERVICEPROVIDERS", c"Two service providers cannot be used in one process";
    MNTAPI_MOUNTPT_NOT_FOUND = 24000, "VIX_E_MNTAPI_MOUNTPT_NOT_FOUND", c"Mounting a virtual disk: mount point not found";
    MNTAPI_MOUNTPT_IN_USE = 24001, "VIX_E_MNTAPI_MOUNTPT_IN_USE", c"Mounting a virtual disk: mount point in use";
    MNTAPI_DISK_NOT_FOUND = 24002, "VIX_E_MNTAPI_DISK_NOT_FOUND", c"Mounting a virtual disk: disk not found";
    MNTAPI_DISK_NOT_MOUNTED = 24003, "VIX_E_MNTAPI_DISK_NOT_MOUNTED", c"Mounting a virtual disk: disk not mounted";
    MNTAPI_DISK_IS_MOUNTED = 24004, "VIX_E_MNTAPI_DISK_IS_MOUNTED", c"Mounting a virtual disk: disk is mounted";
    MNTAPI_DISK_NOT_SAFE = 24005, "VIX_E_MNTAPI_DISK_NOT_SAFE", c"Mounting a virtual disk: disk not safe";
    MNTAPI_DISK_CANT_OPEN = 24006, "VIX_E_MNTAPI_DISK_CANT_OPEN", c"Mounting a virtual disk: the disk cannot be opened";
    MNTAPI_CANT_READ_PARTS = 24007, "VIX_E_MNTAPI_CANT_READ_PARTS", c"Mounting a virtual disk: the partitions cannot be read";
    MNTAPI_UMOUNT_APP_NOT_FOUND = 24008, "VIX_E_MNTAPI_UMOUNT_APP_NOT_FOUND", c"Mounting a virtual disk: umount program not found";
    MNTAPI_UMOUNT = 24009, "VIX_E_MNTAPI_UMOUNT", c"Mounting a virtual disk: it could not be unmounted";
    MNTAPI_NO_MOUNTABLE_PARTITONS = 24010, "VIX_E_MNTAPI_NO_MOUNTABLE_PARTITONS", c"Mounting a virtual disk: no mountable partitions";
    MNTAPI_PARTITION_RANGE = 24011, "VIX_E_MNTAPI_PARTITION_RANGE", c"Mounting a virtual disk: the partition is out of range";
    MNTAPI_PERM = 24012, "VIX_E_MNTAPI_PERM", c"Mounting a virtual disk: no permission";
    MNTAPI_DICT = 24013, "VIX_E_MNTAPI_DICT", c"Mounting a virtual disk: the dictionary is not valid";
    MNTAPI_DICT_LOCKED = 24014, "VIX_E_MNTAPI_DICT_LOCKED", c"Mounting a virtual disk: the dictionary is locked";
    MNTAPI_OPEN_HANDLES = 24015, "VIX_E_MNTAPI_OPEN_HANDLES", c"Mounting a virtual disk: there are open handles";
    MNTAPI_CANT_MAKE_VAR_DIR = 24016, "VIX_E_MNTAPI_CANT_MAKE_VAR_DIR", c"Mounting a virtual disk: a directory could not be made";
    MNTAPI_NO_ROOT = 24017, "VIX_E_MNTAPI_NO_ROOT", c"Mounting a virtual disk: administrator's rights are needed";
    MNTAPI_LOOP_FAILED = 24018, "VIX_E_MNTAPI_LOOP_FAILED", c"Mounting a virtual disk: the loop device failed";
    MNTAPI_DAEMON = 24019, "VIX_E_MNTAPI_DAEMON", c"Mounting a virtual disk: the daemon failed";
    MNTAPI_INTERNAL = 24020, "VIX_E_MNTAPI_INTERNAL", c"Mounting a virtual disk: internal error";
    MNTAPI_SYSTEM = 24021, "VIX_E_MNTAPI_SYSTEM", c"Mounting a virtual disk: the system returned an error";
    MNTAPI_NO_CONNECTION_DETAILS = 24022, "VIX_E_MNTAPI_NO_CONNECTION_DETAILS", c"Mounting a virtual disk: no connection details";
    MNTAPI_INCOMPATIBLE_VERSION = 24300, "VIX_E_MNTAPI_INCOMPATIBLE_VERSION", c"Mounting a virtual disk: incompatible version";
    MNTAPI_OS_ERROR = 24301, "VIX_E_MNTAPI_OS_ERROR", c"Mounting a virtual disk: the operating system returned an error";
    MNTAPI_DRIVE_LETTER_IN_USE = 24302, "VIX_E_MNTAPI_DRIVE_LETTER_IN_USE", c"Mounting a virtual disk: drive letter in use";
    MNTAPI_DRIVE_LETTER_ALREADY_ASSIGNED = 24303, "VIX_E_MNTAPI_DRIVE_LETTER_ALREADY_ASSIGNED", c"Mounting a virtual disk: drive letter already assigned";
    MNTAPI_VOLUME_NOT_MOUNTED = 24304, "VIX_E_MNTAPI_VOLUME_NOT_MOUNTED", c"Mounting a virtual disk: volume not mounted";
    MNTAPI_VOLUME_ALREADY_MOUNTED = 24305, "VIX_E_MNTAPI_VOLUME_ALREADY_MOUNTED", c"Mounting a virtual disk: volume already mounted";
    MNTAPI_FORMAT_FAILURE = 24306, "VIX_E_MNTAPI_FORMAT_FAILURE", c"Mounting a virtual disk: the format could not be made";
    MNTAPI_NO_DRIVER = 24307, "VIX_E_MNTAPI_NO_DRIVER", c"Mounting a virtual disk: no driver";
    MNTAPI_ALREADY_OPENED = 24308, "VIX_E_MNTAPI_ALREADY_OPENED", c"Mounting a virtual disk: already opened";
    MNTAPI_ITEM_NOT_FOUND = 24309, "VIX_E_MNTAPI_ITEM_NOT_FOUND", c"Mounting a virtual disk: item not found";
    MNTAPI_UNSUPPROTED_BOOT_LOADER = 24310, "VIX_E_MNTAPI_UNSUPPROTED_BOOT_LOADER", c"Mounting a virtual disk: unsupported boot loader";
    MNTAPI_UNSUPPROTED_OS = 24311, "VIX_E_MNTAPI_UNSUPPROTED_OS", c"Mounting a virtual disk: unsupported operating system";
    MNTAPI_CODECONVERSION = 24312, "VIX_E_MNTAPI_CODECONVERSION", c"Mounting a virtual disk: code conversion failed";
    MNTAPI_REGWRITE_ERROR = 24313, "VIX_E_MNTAPI_REGWRITE_ERROR", c"Mounting a virtual disk: registry write error";
    MNTAPI_UNSUPPORTED_FT_VOLUME = 24314, "VIX_E_MNTAPI_UNSUPPORTED_FT_VOLUME", c"Mounting a virtual disk: fault-tolerant volumes are not supported";
    MNTAPI_PARTITION_NOT_FOUND = 24315, "VIX_E_MNTAPI_PARTITION_NOT_FOUND", c"Mounting a virtual disk: partition not found";
    MNTAPI_PUTFILE_ERROR = 24316, "VIX_E_MNTAPI_PUTFILE_ERROR", c"Mounting a virtual disk: a file could not be written";
    MNTAPI_GETFILE_ERROR = 24317, "VIX_E_MNTAPI_GETFILE_ERROR", c"Mounting a virtual disk: a file could not be read";
    MNTAPI_REG_NOT_OPENED = 24318, "VIX_E_MNTAPI_REG_NOT_OPENED", c"Mounting a virtual disk: the registry is not open";
    MNTAPI_REGDELKEY_ERROR = 24319, "VIX_E_MNTAPI_REGDELKEY_ERROR", c"Mounting a virtual disk: a registry key could not be deleted";
    MNTAPI_CREATE_PARTITIONTABLE_ERROR = 24320, "VIX_E_MNTAPI_CREATE_PARTITIONTABLE_ERROR", c"Mounting a virtual disk: the partition table could not be made";
    MNTAPI_OPEN_FAILURE = 24321, "VIX_E_MNTAPI_OPEN_FAILURE", c"Mounting a virtual disk: it could not be opened";
    MNTAPI_VOLUME_NOT_WRITABLE = 24322, "VIX_E_MNTAPI_VOLUME_NOT_WRITABLE", c"Mounting a virtual disk: volume not writable";
    ASYNC = 25000, "VIX_ASYNC", c"The operation goes on in the background";
    ASYNC_MIXEDMODE_UNSUPPORTED = 26000, "VIX_E_ASYNC_MIXEDMODE_UNSUPPORTED", c"Asynchronous and synchronous use cannot be mixed";
    NET_HTTP_UNSUPPORTED_PROTOCOL = 30001, "VIX_E_NET_HTTP_UNSUPPORTED_PROTOCOL", c"HTTP: unsupported protocol";
    NET_HTTP_URL_MALFORMAT = 30003, "VIX_E_NET_HTTP_URL_MALFORMAT", c"HTTP: the URL is malformed";
    NET_HTTP_COULDNT_RESOLVE_PROXY = 30005, "VIX_E_NET_HTTP_COULDNT_RESOLVE_PROXY", c"HTTP: could not resolve proxy";
    NET_HTTP_COULDNT_RESOLVE_HOST = 30006, "VIX_E_NET_HTTP_COULDNT_RESOLVE_HOST", c"HTTP: could not resolve host";
    NET_HTTP_COULDNT_CONNECT = 30007, "VIX_E_NET_HTTP_COULDNT_CONNECT", c"HTTP: could not connect";
    NET_HTTP_HTTP_RETURNED_ERROR = 30022, "VIX_E_NET_HTTP_HTTP_RETURNED_ERROR", c"HTTP: the server returned an error";
    NET_HTTP_OPERATION_TIMEDOUT = 30028, "VIX_E_NET_HTTP_OPERATION_TIMEDOUT", c"HTTP: timed out";
    NET_HTTP_SSL_CONNECT_ERROR = 30035, "VIX_E_NET_HTTP_SSL_CONNECT_ERROR", c"HTTP: SSL could not connect";
    NET_HTTP_TOO_MANY_REDIRECTS = 30047, "VIX_E_NET_HTTP_TOO_MANY_REDIRECTS", c"HTTP: too many redirects";
    NET_HTTP_TRANSFER = 30200, "VIX_E_NET_HTTP_TRANSFER", c"HTTP: the transfer failed";
    NET_HTTP_SSL_SECURITY = 30201, "VIX_E_NET_HTTP_SSL_SECURITY", c"HTTP: SSL security";
    NET_HTTP_GENERIC = 30202, "VIX_E_NET_HTTP_GENERIC", c"HTTP: unknown error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_error_are_where_the_header_puts_them() {
        let error = with_parts(GUEST_USER_PERMISSIONS, FLAG_GUEST, EXTRA_LINUX, 13);
        assert_eq!(error, 0x0000_000D_0401_0BC7);
        assert_eq!((of(error), flags(error), extra_type(error), extra(error)), (3015, 1, 4, 13));
    }

    #[test]
    fn every_code_has_one_name_and_one_text() {
        for pair in ALL.windows(2) {
            assert!(pair[0] < pair[1], "{} comes before {}", pair[0], pair[1]);
        }
        for &code in ALL {
            assert!(name(code).is_some_and(|name| name.starts_with("VIX_")));
            assert!(text(code).is_some_and(|text| !text.is_empty()));
        }
        assert_eq!((name(28), text(28)), (None, None));
    }
}

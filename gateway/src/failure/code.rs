//! The codes of the contract, with the status by which HTTP tells each: the one table of statuses. SSH and the audit log use the
//! same codes.

macro_rules! codes {
    ($($name:ident $status:literal $text:literal $description:literal),* $(,)?) => {
        /// What went wrong, as the SDK's error classes name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($name),* }

        impl Code {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// By which HTTP tells it.
            pub(crate) fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// Of the code, whatever the case.
            pub(crate) fn description(self) -> &'static str {
                match self { $(Self::$name => $description),* }
            }
        }
    };
}

codes! {
    Unauthorized 401 "UNAUTHORIZED_ERROR" "Missing, invalid or revoked credential",
    Forbidden 403 "FORBIDDEN" "Not allowed",
    VmAccessDenied 403 "VM_ACCESS_DENIED" "No access to this VM as this user",
    IdentityNotFound 404 "IDENTITY_NOT_FOUND" "No such identity",
    SshKeyExists 409 "SSH_KEY_ALREADY_EXISTS" "This SSH key is registered already",
    PermissionNotFound 404 "VM_PERMISSION_NOT_FOUND" "No grant for this identity and VM",
    PermissionExists 409 "PERMISSION_ALREADY_EXISTS" "This identity has a grant for this VM already",
    InvalidParameters 400 "INVALID_PARAMETERS" "A parameter is wrong",
    VmNotFound 404 "VM_NOT_FOUND" "No such VM",
    VmNotRunning 400 "VM_NOT_RUNNING" "The VM is not running",
    VmIsSuspending 409 "VM_IS_SUSPENDING" "The VM is being suspended or stopped",
    VmDeleted 410 "VM_DELETED" "The VM was deleted",
    VmStartTimeout 504 "VM_START_TIMEOUT" "The VM did not start in time",
    VmStartFailed 500 "VM_EXIT_DURING_START" "The VM could not be started",
    VmNotResponsive 500 "RESUMED_VM_NON_RESPONSIVE" "No agent answers in the VM",
    VmSetupFailed 500 "VM_SETUP_FAILED" "The VM could not be set up",
    SuspendFailed 500 "SUSPEND_FAILED_AND_STOP_FAILED" "The VM could not be suspended or stopped",
    CreateBadRequest 400 "CREATE_VM_BAD_REQUEST" "This VM cannot be created",
    UserNotFound 404 "USER_NOT_FOUND" "No such Linux user in the VM",
    UserAlreadyExists 409 "USER_ALREADY_EXISTS" "The Linux user exists already",
    DuplicateUserName 400 "DUPLICATE_USER_NAME" "A user is named twice",
    UserUidOutOfRange 400 "USER_UID_OUT_OF_RANGE" "A uid is from 0 to 65535",
    UserHomeInvalid 400 "USER_HOME_INVALID" "A home directory starts with /",
    UserShellInvalid 400 "USER_SHELL_INVALID" "A shell starts with /",
    UserGroupEmpty 400 "USER_GROUP_EMPTY" "A group's name is empty",
    GroupAlreadyExists 409 "GROUP_ALREADY_EXISTS" "The Linux group exists already",
    DuplicateGroupName 400 "DUPLICATE_GROUP_NAME" "A group is named twice",
    UserSystemFlagMismatch 400 "USER_SYSTEM_FLAG_MISMATCH" "A system user's uid is at most 999",
    GroupNameEmpty 400 "GROUP_NAME_EMPTY" "A group's name is empty",
    GroupNameTooLong 400 "GROUP_NAME_TOO_LONG" "A group's name is too long",
    GroupNameReserved 400 "GROUP_NAME_RESERVED" "The group is the system's own",
    GroupNameInvalidChars 400 "GROUP_NAME_INVALID_CHARS" "A group's name has characters that it cannot have",
    ValidationError 400 "VALIDATION_ERROR" "A field is wrong",
    FileNotFound 404 "FILE_NOT_FOUND" "No such file or directory",
    FilesBadRequest 400 "FILES_BAD_REQUEST" "This cannot be done with this path",
    InvalidBase64 400 "INVALID_BASE64_CONTENT" "The content is not base64",
    ExecTimedOut 408 "EXEC_TIMED_OUT" "The command did not end in time and was killed",
    ServiceNotFound 404 "SERVICE_NOT_FOUND" "No such service",
    ServiceAlreadyExists 409 "SERVICE_ALREADY_EXISTS" "The service exists already",
    ServiceNameEmpty 400 "SERVICE_NAME_EMPTY" "A service's name is empty",
    ServiceNameTooLong 400 "SERVICE_NAME_TOO_LONG" "A service's name is too long",
    ServiceNameInvalidChars 400 "SERVICE_NAME_INVALID_CHARS" "A service's name has characters that it cannot have",
    ServiceNameInvalidPrefix 400 "SERVICE_NAME_INVALID_PREFIX" "A service's name begins with . or -",
    ExecEmpty 400 "EXEC_EMPTY" "A service has no command",
    EnvKeyEmpty 400 "ENV_KEY_EMPTY" "A variable's name is empty",
    EnvKeyContainsEquals 400 "ENV_KEY_CONTAINS_EQUALS" "A variable's name has a =",
    AfterContainsEmpty 400 "AFTER_ARRAY_CONTAINS_EMPTY" "A name in after is empty",
    RequiresContainsEmpty 400 "REQUIRES_ARRAY_CONTAINS_EMPTY" "A name in requires is empty",
    OnFailureContainsEmpty 400 "ON_FAILURE_ARRAY_CONTAINS_EMPTY" "A name in onFailure is empty",
    WantedByEmpty 400 "WANTED_BY_EMPTY" "A name in wantedBy is empty",
    TerminalNotFound 404 "TERMINAL_NOT_FOUND" "No such terminal of this user",
    TerminalExists 409 "TERMINAL_ALREADY_EXISTS" "The user has a terminal of this name already",
    TerminalExited 409 "TERMINAL_EXITED" "The terminal's program has exited",
    TerminalNotReading 409 "TERMINAL_NOT_READING" "The terminal's program does not read its input",
    UserEmpty 400 "USER_EMPTY" "A service's user is empty",
    GroupEmpty 400 "GROUP_EMPTY" "A service's group is empty",
    WorkdirEmpty 400 "WORKDIR_EMPTY" "A service's workdir is empty",
    BadRequest 400 "BAD_REQUEST" "The request is wrong",
    NotFound 404 "NOT_FOUND" "There is no such thing",
    MethodNotAllowed 405 "METHOD_NOT_ALLOWED" "The route does not take this method",
    RangeNotSatisfiable 416 "INVALID_RANGE" "The file has no such range",
    TooManyRequests 429 "LIMIT_EXCEEDED" "Too many requests",
    Unimplemented 501 "UNIMPLEMENTED" "Not built yet",
    Internal 500 "INTERNAL_ERROR" "The gateway or the VM failed",
    Database 503 "DATABASE_ERROR" "The gateway's database does not answer",
}

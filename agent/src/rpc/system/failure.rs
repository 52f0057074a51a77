//! How the errors of the domain `system` are told to the client.

use guestline_proto::v1::ErrorReason;
use nix::errno::Errno;

use crate::{
    rpc::status::Failure,
    system::{
        accounts::AccountError, clock::ClockError, create::CreateError, entropy::EntropyError,
        freeze::FreezeError, services::ServiceError, shutdown::ShutdownError, tool::ToolError,
    },
};

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        Failure::refused(ErrorReason::Io, "read accounts", error.to_string())
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let operation = "create account";
        let text = error.to_string();
        match error {
            CreateError::Invalid(_) => Failure::invalid(operation, text),
            CreateError::Exists(_) => Failure::refused(ErrorReason::AlreadyExists, operation, text),
            CreateError::NoGroup(_) => Failure::refused(ErrorReason::NoSuchUser, operation, text),
            CreateError::Denied { path, errno } => Failure::kernel("open for writing", path, errno),
            CreateError::NoTool(..) => Failure::refused(ErrorReason::Unsupported, operation, text),
            CreateError::Run { tool, errno } => Failure::kernel("run", tool, errno),
            CreateError::Tool { .. } => Failure::refused(ErrorReason::ToolFailed, operation, text),
            CreateError::Accounts(error) => error.into(),
        }
    }
}

impl From<ClockError> for Failure {
    fn from(error: ClockError) -> Self {
        match error {
            ClockError::TooEarly => Failure::invalid("set time", error.to_string()),
            ClockError::Set(errno) => Failure::kernel("set time", Vec::new(), errno),
        }
    }
}

impl From<EntropyError> for Failure {
    fn from(error: EntropyError) -> Self {
        match error {
            EntropyError::Empty | EntropyError::TooMuch(_) => {
                Failure::invalid("reseed", error.to_string())
            }
            EntropyError::Refused { operation, errno } => {
                Failure::kernel(operation, error.path(), errno)
            }
        }
    }
}

impl From<FreezeError> for Failure {
    fn from(error: FreezeError) -> Self {
        let text = error.to_string();
        let (reason, operation) = match error {
            FreezeError::Refused {
                operation,
                path,
                errno,
            } => return Failure::kernel(operation.name(), path, Errno::from_raw(errno)),
            FreezeError::Start { errno } => {
                return Failure::kernel("start the freezer", Vec::new(), Errno::from_raw(errno));
            }
            FreezeError::Busy => (ErrorReason::Busy, "freeze"),
            FreezeError::Nothing => (ErrorReason::Unsupported, "freeze"),
            FreezeError::NotFrozen => (ErrorReason::NotFrozen, "thaw"),
            FreezeError::Overtaken => (ErrorReason::DeadlineExceeded, "freeze"),
            FreezeError::Lost => (ErrorReason::Errno, "freeze"),
        };
        Failure::refused(reason, operation, text)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        let (reason, operation) = match error {
            ServiceError::NoSystemd => (ErrorReason::Unsupported, "services"),
            ServiceError::InvalidName(_)
            | ServiceError::InvalidPattern(_)
            | ServiceError::InvalidUnit
            | ServiceError::BadUnit(_) => (ErrorReason::InvalidArgument, "services"),
            ServiceError::Unknown(_) | ServiceError::NotOurs(_) => {
                (ErrorReason::NotFound, "services")
            }
            ServiceError::Exists(_) => (ErrorReason::AlreadyExists, "create service"),
            ServiceError::TooMany(_) => (ErrorReason::Limit, "list services"),
            ServiceError::Denied(_) => (ErrorReason::PermissionDenied, "services"),
            ServiceError::Failed { .. } => (ErrorReason::ToolFailed, "services"),
            ServiceError::File(error) => return error.into(),
            ServiceError::Tool(error) => return error.into(),
        };
        Failure::refused(reason, operation, text)
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let text = error.to_string();
        let reason = match error {
            ToolError::Start { tool, errno } => return Failure::kernel("run", tool, errno),
            ToolError::Read { tool, errno } => return Failure::kernel("read from", tool, errno),
            ToolError::Missing(_) => ErrorReason::Unsupported,
            ToolError::Limit | ToolError::TooMuch(_) => ErrorReason::Limit,
            ToolError::TooSlow(_) => ErrorReason::DeadlineExceeded,
        };
        Failure::refused(reason, "run", text)
    }
}

impl From<ShutdownError> for Failure {
    fn from(error: ShutdownError) -> Self {
        match error {
            ShutdownError::Refused(errno) => Failure::kernel("shut down", Vec::new(), errno),
            ShutdownError::Systemd(error) => Failure {
                operation: "shut down",
                ..error.into()
            },
        }
    }
}

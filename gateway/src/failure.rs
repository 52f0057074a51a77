//! What fails below HTTP and SSH, in one code and one text for both: a code of the contract, which the audit log has too, and
//! words for the person at the other end. Never what is no client's business: that is for the log.

mod code;

use guestline_client::{Error as GuestError, ErrorReason, RefusalReason};

pub(crate) use code::Code;

use crate::{
    machines::MachineFailure,
    sessions::{Cut, Refusal, SessionError},
    store::StoreError,
};

/// A failed operation.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// What the database said is for the log.
    fn of_store(error: &StoreError) -> Self {
        tracing::error!(error = %full(error), "the database failed");
        Self::new(Code::Database, "the gateway's database does not answer")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NoCredential | Refusal::BadCredential => Code::Unauthorized,
            Refusal::AdminOnly => Code::Forbidden,
            Refusal::NoAccess => Code::VmAccessDenied,
            Refusal::NoSuchVm => Code::VmNotFound,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of_store(&error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(refusal) => refusal.into(),
            SessionError::Store(error) => error.into(),
        }
    }
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Revoked => Self::new(Code::Unauthorized, "the credential was revoked meanwhile"),
            Cut::Ending => Self::new(Code::Internal, "the gateway is ending"),
        }
    }
}

impl From<MachineFailure> for Failure {
    fn from(failure: MachineFailure) -> Self {
        let code = match &failure {
            MachineFailure::NoHook(_) | MachineFailure::Elsewhere | MachineFailure::NoMachines => {
                Code::Unimplemented
            }
            MachineFailure::TimedOut { doing: "start", .. } => Code::VmStartTimeout,
            MachineFailure::TimedOut { .. } => Code::SuspendFailed,
            MachineFailure::Hook { doing: "start", .. } | MachineFailure::Start(_) => {
                Code::VmStartFailed
            }
            MachineFailure::Hook { .. } | MachineFailure::Suspend | MachineFailure::Stop => {
                Code::SuspendFailed
            }
            MachineFailure::Spec(_) => Code::CreateBadRequest,
            MachineFailure::NoAgent | MachineFailure::Secret => Code::VmNotResponsive,
            MachineFailure::Disk | MachineFailure::Uncertain => Code::Internal,
            MachineFailure::Deleted(_) => Code::VmDeleted,
            MachineFailure::NotRunning => Code::VmNotRunning,
            MachineFailure::Suspending => Code::VmIsSuspending,
            MachineFailure::Store(error) => return Self::of_store(error),
        };
        Self::new(code, failure.to_string())
    }
}

/// What a guest refused, where nothing more is known about the operation. The handlers of files and programs know more.
impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        let code = match &error {
            GuestError::Connect { .. } => {
                // Where this host looks for its guests is no client's business.
                tracing::warn!(error = %full(&error), "no agent answers");
                return Self::new(Code::VmNotResponsive, "no agent answers in the VM");
            }
            GuestError::Lost(_) => {
                let text = "the connection to the VM was lost";
                return Self::new(Code::VmNotResponsive, text);
            }
            GuestError::Refused {
                reason: Some(RefusalReason::Unauthenticated),
                ..
            } => Code::VmNotResponsive,
            GuestError::Refused {
                reason: Some(RefusalReason::UserNotFound),
                ..
            } => Code::UserNotFound,
            GuestError::Refused {
                reason: Some(RefusalReason::UserNotAllowed),
                ..
            } => Code::VmAccessDenied,
            GuestError::Operation { reason, .. } => match reason {
                ErrorReason::PermissionDenied | ErrorReason::SwitchedOff => Code::Forbidden,
                ErrorReason::NotFound => Code::NotFound,
                ErrorReason::InvalidArgument => Code::BadRequest,
                ErrorReason::Unsupported => Code::Unimplemented,
                ErrorReason::NoSuchUser => Code::UserNotFound,
                _ => Code::Internal,
            },
            _ => Code::Internal,
        };
        Self::new(code, full(&error))
    }
}

/// An error with its reasons.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

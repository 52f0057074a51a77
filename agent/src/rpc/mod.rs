//! The services of guestline.v1. A handler validates and converts a request, makes one call into the domain beside it
//! (`files`, `processes`, `system`, `network`), and converts back. The domain knows neither tonic nor the proto types.

mod blocking;
mod files;
mod network;
mod processes;
mod status;
mod system;

pub(crate) use files::FilesService;
pub(crate) use network::NetworkService;
pub(crate) use processes::ProcessesService;
pub(crate) use system::SystemService;

use guestline_proto::v1::ErrorReason;
use tonic::{Request, Status};

use status::Failure;

/// Refuses every call of a service that the guest's owner switched off.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
pub(crate) fn switched_on(on: bool) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| {
        if on {
            return Ok(request);
        }
        let text = "this guest's /etc/guestline/agent.toml switches the service off";
        Err(Failure::refused(ErrorReason::SwitchedOff, "call", text).into())
    }
}

/// What a rpc answers that is in the contract and not in this agent.
fn not_yet(operation: &'static str) -> Status {
    Failure::refused(
        ErrorReason::Unsupported,
        operation,
        "this version of the agent does not have it yet",
    )
    .into()
}

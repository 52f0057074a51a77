//! The services of guestline.v1. A handler validates and converts a request, makes one call into the domain beside it
//! (`files`, `processes`, `system`, `network`), and converts back. The domain knows neither tonic nor the proto types.

mod blocking;
mod bulk;
mod calls;
mod files;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod network;
mod processes;
mod status;
mod system;

pub(crate) use calls::{Answering, Calls};
pub(crate) use files::FilesService;
pub(crate) use network::NetworkService;
pub(crate) use processes::ProcessesService;
pub(crate) use system::SystemService;

use std::{path::PathBuf, sync::Arc, time::Duration};

use guestline_proto::v1::ErrorReason;
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};

pub(crate) use blocking::time_limit;
use status::Failure;

/// The calls of Files, as whoever counts their instructions sees them: HTTP in, HTTP out.
pub fn measured_files(home: PathBuf) -> impl Fn(Request<Body>) -> Answering {
    let files = Arc::new(FilesService::new(home));
    move |request| answer(Arc::clone(&files), request)
}

/// Begins the call that the request's path names.
pub(crate) fn answer<C: Calls>(service: Arc<C>, request: Request<Body>) -> Answering {
    let limit = time_limit(request.headers());
    let path = request.uri().path().to_owned();
    let method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let answering = method.and_then(|(_, method)| service.call(method, request));
    match answering {
        Some(answering) => in_time(limit, answering),
        None => Box::pin(async { Ok(refused(unknown_call())) }),
    }
}

/// Of every call of a service that the guest's owner switched off.
pub(crate) fn switched_off() -> Status {
    let text = "this guest's /etc/guestline/agent.toml switches the service off";
    Failure::refused(ErrorReason::SwitchedOff, "call", text).into()
}

/// Of a call to a service that this agent does not have.
pub(crate) fn unknown_service() -> Status {
    Status::unimplemented("this agent has no such service")
}

/// An answer that is nothing but an error.
pub(crate) fn refused(status: Status) -> Response<Body> {
    status.into_http()
}

/// Of a call that the service does not have.
fn unknown_call() -> Status {
    Status::unimplemented("this agent's service has no such call")
}

/// An answer that is ended where its call's `grpc-timeout` passes before it begins. Most calls know that time themselves and
/// end earlier, with what they were at.
pub(crate) fn in_time(limit: Option<Duration>, answering: Answering) -> Answering {
    let Some(limit) = limit else {
        return answering;
    };
    Box::pin(async move {
        match tokio::time::timeout(limit, answering).await {
            Ok(answer) => answer,
            Err(_) => Ok(refused(blocking::too_late().into())),
        }
    })
}

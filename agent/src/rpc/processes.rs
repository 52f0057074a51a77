//! The Processes service: each handler turns its request into one call of the registry of `processes`.

mod answer;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod listed;
mod request;
mod session;

use std::sync::Arc;

use guestline_proto::v1::{
    AttachRequest, ErrorReason, ListProcessesRequest, ListProcessesResponse, RunRequest,
    SignalRequest, SignalResponse, StartRequest, StartResponse, attach_request,
    processes_server::Processes, run_request,
};
use nix::errno::Errno;
use tonic::{Request, Response, Status, Streaming};

use self::{
    request::Start,
    session::{AttachAnswers, RunAnswers},
};
use super::{
    calls::{both, calls, unary},
    status::Failure,
};
use crate::{
    processes::{AttachError, ProcessId, ProcessRegistry, RunError, SignalError},
    system::accounts::Account,
};

/// Programs of one user, the worker's own.
#[derive(Clone, Debug)]
pub(crate) struct ProcessesService {
    account: Arc<Account>,
    registry: ProcessRegistry,
}

impl ProcessesService {
    /// The account is the one that the worker has become.
    pub(crate) fn new(account: Arc<Account>, registry: ProcessRegistry) -> Self {
        Self { account, registry }
    }
}

calls! {
    ProcessesService, "guestline.v1.Processes",
    both "Run" => run,
    unary "Start" => start,
    both "Attach" => attach,
    unary "List" => list,
    unary "Signal" => signal,
}

#[tonic::async_trait]
impl Processes for ProcessesService {
    type RunStream = RunAnswers;
    type AttachStream = AttachAnswers;

    async fn run(
        &self,
        request: Request<Streaming<RunRequest>>,
    ) -> Result<Response<RunAnswers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(run_request::Message::Start(start)) = first else {
            return Err(Failure::invalid("run", "the first message must be `start`").into());
        };
        let start = Start::try_from(start)?;
        let account = Arc::clone(&self.account);
        let running = self
            .registry
            .run(account, start.process, start.on_disconnect);
        let client = running.await.map_err(Failure::from)?;
        Ok(Response::new(RunAnswers::run(client, requests)))
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let (spec, ring_size) = request::detached(request.into_inner())?;
        let account = Arc::clone(&self.account);
        let started = self.registry.run_detached(account, spec, ring_size);
        let (ProcessId(process_id), pid) = started.await.map_err(Failure::from)?;
        Ok(Response::new(StartResponse { process_id, pid }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<AttachAnswers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(attach_request::Message::Start(start)) = first else {
            return Err(Failure::invalid("attach", "the first message must be `start`").into());
        };
        let id = ProcessId(start.process_id);
        let attached = self
            .registry
            .attach(id, start.stdout_offset, start.stderr_offset);
        let (attachment, controls) = attached.map_err(Failure::from)?;
        let answers = AttachAnswers::attach(attachment, controls, requests);
        Ok(Response::new(answers))
    }

    async fn list(
        &self,
        _: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        let user = &self.account.name;
        let processes = self.registry.list().into_iter();
        let processes = processes.map(|process| answer::process(user, process));
        Ok(Response::new(listed::listed(processes.collect())))
    }

    async fn signal(
        &self,
        request: Request<SignalRequest>,
    ) -> Result<Response<SignalResponse>, Status> {
        let SignalRequest { process_id, signal } = request.into_inner();
        let (signal, target) = request::signal(signal.unwrap_or_default())?;
        self.registry
            .signal(ProcessId(process_id), signal, target)
            .map_err(Failure::from)?;
        Ok(Response::new(SignalResponse {}))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Limit | RunError::Memory => {
                Self::refused(ErrorReason::Limit, "start", error.to_string())
            }
            RunError::Start {
                operation,
                subject,
                source,
            } => Self::kernel(operation, subject, source),
            RunError::LoginSession(errno) => {
                let reason = match errno {
                    Errno::EOPNOTSUPP => ErrorReason::Unsupported,
                    Errno::EAGAIN => ErrorReason::Limit,
                    Errno::EIO | Errno::ETIMEDOUT => ErrorReason::ToolFailed,
                    _ => return Self::kernel("login_session", Vec::new(), errno),
                };
                Self::refused(reason, "login_session", error.to_string())
            }
            RunError::Stopped => Self::refused(ErrorReason::Draining, "start", error.to_string()),
        }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Unknown(_) => {
                Self::refused(ErrorReason::NoSuchProcess, "attach", error.to_string())
            }
            AttachError::Attended(_) | AttachError::BeyondEnd(_) => {
                Self::invalid("attach", error.to_string())
            }
        }
    }
}

impl From<SignalError> for Failure {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Unknown(_) | SignalError::Ended(_) => {
                Self::refused(ErrorReason::NoSuchProcess, "signal", error.to_string())
            }
            SignalError::Ungrouped(_) => {
                Self::refused(ErrorReason::Unsupported, "signal", error.to_string())
            }
            SignalError::Kernel { source, .. } => Self::kernel("signal", Vec::new(), source),
        }
    }
}

//! The Processes service: Run, List and Signal. Detached programs (Start, Attach) are not served yet.

mod answer;
mod request;
mod run;

use std::sync::Arc;

use guestline_proto::v1::{
    AttachRequest, AttachResponse, ErrorReason, ListProcessesRequest, ListProcessesResponse,
    RunRequest, SignalRequest, SignalResponse, StartRequest, StartResponse, run_request::Message,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use self::{request::Start, run::RunAnswers};
use super::{not_yet, status::Failure};
use crate::{
    processes::{ProcessId, ProcessRegistry, RunError, SignalError},
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

#[tonic::async_trait]
impl guestline_proto::v1::processes_server::Processes for ProcessesService {
    type RunStream = RunAnswers;
    type AttachStream = Empty<Result<AttachResponse, Status>>;

    async fn run(
        &self,
        request: Request<Streaming<RunRequest>>,
    ) -> Result<Response<RunAnswers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(Message::Start(start)) = first else {
            return Err(Failure::invalid("start", "the first message must be `start`").into());
        };
        let start = Start::try_from(start)?;
        let account = Arc::clone(&self.account);
        let running = self
            .registry
            .run(account, start.process, start.on_disconnect);
        let client = running.await.map_err(Failure::from)?;
        Ok(Response::new(RunAnswers::new(client, requests)))
    }

    async fn start(&self, _: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        Err(not_yet("start"))
    }

    async fn attach(
        &self,
        _: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(not_yet("attach"))
    }

    async fn list(
        &self,
        _: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        let processes = self.registry.list().into_iter().map(answer::process);
        Ok(Response::new(ListProcessesResponse {
            processes: processes.collect(),
        }))
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
            RunError::Limit => Self::refused(ErrorReason::Limit, "start", error.to_string()),
            RunError::Start {
                operation,
                subject,
                source,
            } => Self::kernel(operation, subject, source),
            RunError::Stopped => Self::refused(ErrorReason::Draining, "start", error.to_string()),
        }
    }
}

impl From<SignalError> for Failure {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Unknown(_) | SignalError::Ended(_) => {
                Self::refused(ErrorReason::NoSuchProcess, "signal", error.to_string())
            }
            SignalError::Kernel { source, .. } => Self::kernel("signal", Vec::new(), source),
        }
    }
}

//! The Network service: Forward and ListPorts.

mod convert;
mod forward;
#[cfg(fuzzing)]
pub(super) mod fuzzing;

use std::{path::PathBuf, sync::Arc};

use guestline_proto::v1::{
    ErrorReason, ForwardRequest, ForwardResponse, ListPortsRequest, ListPortsResponse,
    forward_request::Message, network_server::Network,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::convert::Target;
use super::{
    blocking::{BlockingStream, Deadline, Sink, blocking, blocking_stream},
    calls::{answers, both, calls},
    status::Failure,
};
use crate::{
    network::{self, Connection},
    sys::errno_of,
};

/// Forwards at once in one worker: each has a descriptor, and up to a MiB of data each way.
const MAX_FORWARDS: usize = 256;

/// Ports in one message.
const PAGE: usize = 512;

/// Streams to what listens in the guest.
#[derive(Debug)]
pub(crate) struct NetworkService {
    home: PathBuf,
    places: Arc<Semaphore>,
}

impl NetworkService {
    /// Relative paths of Unix sockets start at that directory.
    pub(crate) fn new(home: PathBuf) -> Self {
        let places = Arc::new(Semaphore::new(MAX_FORWARDS));
        Self { home, places }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| {
            let text = format!("{MAX_FORWARDS} streams of this user are open already");
            Failure::refused(ErrorReason::Limit, "forward", text)
        })
    }
}

calls! {
    NetworkService, "guestline.v1.Network",
    both "Forward" => forward,
    answers "ListPorts" => list_ports,
}

#[tonic::async_trait]
impl Network for NetworkService {
    type ForwardStream = ReceiverStream<Result<ForwardResponse, Status>>;
    type ListPortsStream = BlockingStream<ListPortsResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let deadline = Deadline::of(&request);
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(Message::Open(open)) = first else {
            return Err(Failure::invalid("forward", "the first message is not `open`").into());
        };
        let target = convert::target(open, &self.home)?;
        let place = self.place()?;
        let connection = connect(target, deadline).await?;
        Ok(Response::new(forward::relay(connection, requests, place)))
    }

    async fn list_ports(
        &self,
        request: Request<ListPortsRequest>,
    ) -> Result<Response<Self::ListPortsStream>, Status> {
        let stream = blocking_stream(Deadline::of(&request), send_ports)?;
        Ok(Response::new(stream))
    }
}

async fn connect(target: Target, deadline: Deadline) -> Result<Connection, Status> {
    match target {
        Target::Tcp { address, port } => {
            let connection = network::connect_tcp(address, port).await;
            Ok(connection.map_err(Failure::from)?)
        }
        Target::Unix(path) => {
            let socket = blocking(deadline, move || Ok(network::connect_unix(&path)?)).await?;
            let connection = Connection::unix(socket);
            Ok(connection
                .map_err(|error| Failure::kernel("connect", Vec::new(), errno_of(&error)))?)
        }
    }
}

fn send_ports(sink: &Sink<ListPortsResponse>) -> Result<(), Failure> {
    let mut ports = Vec::new();
    let mut gone = false;
    network::listening(|port| {
        ports.push(convert::port(port));
        if ports.len() == PAGE {
            let ports = std::mem::take(&mut ports);
            gone = sink.send(ListPortsResponse { ports }).is_err();
        }
        !gone
    })?;
    if !gone && !ports.is_empty() {
        // The last one: nothing is left to stop.
        let _ = sink.send(ListPortsResponse { ports });
    }
    Ok(())
}

//! The server that takes new connections, and its successors: one is told to let go of what it has, and the next begins.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use super::{handed::HandedSocket, serve::serve};
use crate::{
    control::Services, processes::ProcessRegistry, system::accounts::Account,
    system::generation::Generation,
};

/// Sockets that wait to be served: they are taken up at once.
const SOCKET_QUEUE: usize = 16;

/// What every server of a worker serves.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) account: Arc<Account>,
    pub(super) services: Services,
    /// Where the listener keeps a file for each worker.
    pub(super) roster: PathBuf,
    pub(super) registry: ProcessRegistry,
    pub(super) generation: Generation,
}

/// A server that runs. Dropping it tells its connections to go (GOAWAY); it ends when the last of them has gone.
pub(super) struct Serving {
    sockets: mpsc::Sender<HandedSocket>,
    _drain: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    pub(super) fn begin(served: &Served) -> Self {
        let (sockets, incoming) = mpsc::channel(SOCKET_QUEUE);
        let (drain, draining) = oneshot::channel();
        Self {
            sockets,
            _drain: drain,
            task: tokio::spawn(serve(served.clone(), incoming, draining)),
        }
    }

    pub(super) async fn take(&self, socket: HandedSocket) {
        // One that failed drops it, which its peer sees.
        let _ = self.sockets.send(socket).await;
    }

    /// Until it failed, which is the only way that it ends by itself. Cancel-safe.
    pub(super) async fn failed(&mut self) -> Option<JoinError> {
        (&mut self.task).await.err()
    }
}

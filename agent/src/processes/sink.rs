//! Where a program's output and its exit go: to the one client that runs it, or into rings for whoever attaches.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    client::{Event, Exit},
    detached::Detached,
    output::Stream,
};

#[derive(Clone, Debug)]
pub(super) enum Sink {
    /// Stalls the program while the client does not read.
    Client(mpsc::Sender<Event>),
    /// Never stalls it.
    Rings(Arc<Detached>),
}

/// Room for one chunk.
pub(super) enum Room<'a> {
    Client(mpsc::Permit<'a, Event>),
    Rings(&'a Detached),
    /// The client vanished: read and dropped. Its program is ended by the owner, if that is asked for.
    Dropped,
}

impl Sink {
    /// Waits until one more chunk can be taken. Cancel-safe.
    pub(super) async fn room(&self) -> Room<'_> {
        match self {
            Self::Client(client) => client.reserve().await.map_or(Room::Dropped, Room::Client),
            Self::Rings(detached) => Room::Rings(detached),
        }
    }

    /// Whether [`Sink::room`] would wait now.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Client(client) => !client.is_closed() && client.capacity() == 0,
            Self::Rings(_) => false,
        }
    }

    /// Waits until the client has vanished; a detached program has none that could. Cancel-safe.
    pub(super) async fn vanished(&self) {
        match self {
            Self::Client(client) => client.closed().await,
            Self::Rings(_) => std::future::pending().await,
        }
    }

    /// After all output; `None`: how the program ended is not known.
    pub(super) async fn end(self, exit: Option<Exit>) {
        match self {
            Self::Client(client) => {
                if let Some(exit) = exit {
                    // A client that vanished needs no answer.
                    let _ = client.send(Event::Exited(exit)).await;
                }
            }
            Self::Rings(detached) => detached.end(exit),
        }
    }
}

impl Room<'_> {
    pub(super) fn fill(self, stream: Stream, chunk: Vec<u8>) {
        match self {
            Self::Client(place) => place.send(Event::Output(stream, Bytes::from(chunk))),
            Self::Rings(detached) => detached.push(stream, &chunk),
            Self::Dropped => {}
        }
    }
}

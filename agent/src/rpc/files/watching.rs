//! The watch call: events as messages, on a thread that ends with the call.

use std::{
    io::PipeWriter,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use guestline_proto::v1::{
    ErrorReason, WatchEvent, WatchKind, WatchOverflow, WatchReady, WatchResponse,
    watch_response::Message,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::Status;

use super::convert::bytes_of;
use crate::{
    files::{self, Change, ChangeKind, Happened},
    rpc::{
        blocking::{BlockingStream, Deadline, blocking_stream},
        status::Failure,
    },
};

/// Watches of one user at once: each holds one of the threads that its other calls need too, and its events.
const MAX_WATCHES: usize = 32;

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_WATCHES)));

/// What the call answers with. Dropping it ends the watch, also one where nothing happens.
pub(crate) struct WatchStream {
    messages: BlockingStream<WatchResponse>,
    /// The thread waits for this to close, besides events.
    _stop: PipeWriter,
    _place: OwnedSemaphorePermit,
}

impl Stream for WatchStream {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.messages).poll_next(context)
    }
}

/// Begins a watch.
pub(super) fn begin(deadline: Deadline, watch: files::Watch) -> Result<WatchStream, Status> {
    let place = Arc::clone(&PLACES).try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_WATCHES} watches of this user are under way");
        Failure::refused(ErrorReason::Limit, "watch", text)
    })?;
    let (stopped, stop) = std::io::pipe().map_err(|error| {
        let errno = crate::sys::errno_of(&error);
        Failure::kernel("watch", Vec::new(), errno)
    })?;
    let messages = blocking_stream(deadline, move |sink| {
        let tell = |happened| {
            let message = Some(message(happened));
            sink.send(WatchResponse { message }).is_ok()
        };
        Ok(files::watch(&watch, stopped, tell)?)
    })?;
    Ok(WatchStream {
        messages,
        _stop: stop,
        _place: place,
    })
}

fn message(happened: Happened) -> Message {
    match happened {
        Happened::Ready {
            directories,
            refused,
        } => Message::Ready(WatchReady {
            directories,
            refused,
        }),
        Happened::Overflow => Message::Overflow(WatchOverflow {}),
        Happened::Changed(change) => Message::Event(event(change)),
    }
}

fn event(change: Change) -> WatchEvent {
    let (kind, from) = match change.kind {
        ChangeKind::Created => (WatchKind::Created, None),
        ChangeKind::Modified => (WatchKind::Modified, None),
        ChangeKind::Attributes => (WatchKind::Attributes, None),
        ChangeKind::Removed => (WatchKind::Removed, None),
        ChangeKind::Renamed(from) => (WatchKind::Renamed, Some(from)),
        ChangeKind::Gone => (WatchKind::Gone, None),
    };
    WatchEvent {
        kind: kind.into(),
        path: bytes_of(change.path.into_os_string()),
        from: from
            .map(|from| bytes_of(from.into_os_string()))
            .unwrap_or_default(),
        directory: change.directory,
    }
}

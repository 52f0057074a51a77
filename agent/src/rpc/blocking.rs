//! How a handler makes a file system call that may block: on a thread of its own, in bounded number, up to the
//! client's deadline.
//!
//! A thread that the kernel holds (a hung FUSE mount) cannot be taken back; its call ends at its deadline all the same,
//! and the place it keeps is given back when the kernel lets go.

use std::{
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use guestline_proto::v1::ErrorReason;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tonic::{Request, Status};

use super::status::Failure;

/// Calls that block at once in one worker: each may hold a thread (with some 16 KiB resident) and a chunk or two.
const MAX_BLOCKING_CALLS: usize = 256;

/// Messages of a stream that wait for the connection: one is being sent, one is ready, one is being made.
const STREAM_QUEUE: usize = 2;

static PLACES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MAX_BLOCKING_CALLS)));

/// When the client will no longer want the answer; `None`: it waits for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let timeout = request
            .metadata()
            .get("grpc-timeout")
            .and_then(|value| parse_timeout(value.to_str().ok()?));
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    async fn passed(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Runs one blocking call. Dropping the future (the client vanished) lets the call itself run to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    deadline: Deadline,
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    let place = place()?;
    let task = tokio::task::spawn_blocking(move || {
        let result = call();
        drop(place);
        result
    });
    tokio::select! {
        result = task => match result {
            Ok(result) => Ok(result?),
            Err(_) => Err(Status::internal("the call panicked; see the agent's log")),
        },
        () = deadline.passed() => Err(too_late().into()),
    }
}

/// Where a blocking call puts the messages of its stream.
pub(crate) struct Sink<T>(mpsc::Sender<Result<T, Status>>);

/// The client is gone: stop.
#[derive(Debug)]
pub(crate) struct Gone;

impl<T> Sink<T> {
    /// Waits until there is room.
    pub(crate) fn send(&self, message: T) -> Result<(), Gone> {
        self.0.blocking_send(Ok(message)).map_err(|_| Gone)
    }
}

/// Runs a blocking call that sends messages as it goes; its error, if any, is the stream's end.
pub(crate) fn blocking_stream<T: Send + 'static>(
    deadline: Deadline,
    call: impl FnOnce(&Sink<T>) -> Result<(), Failure> + Send + 'static,
) -> Result<BlockingStream<T>, Status> {
    let place = place()?;
    let (sender, messages) = mpsc::channel(STREAM_QUEUE);
    tokio::task::spawn_blocking(move || {
        let sink = Sink(sender);
        if let Err(failure) = call(&sink) {
            // A client that is gone needs no error.
            let _ = sink.0.blocking_send(Err(failure.into()));
        }
        drop(place);
    });
    let deadline = deadline.0.map(|at| Box::pin(tokio::time::sleep_until(at)));
    Ok(BlockingStream { messages, deadline })
}

/// What [`blocking_stream`] answers with.
pub(crate) struct BlockingStream<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Stream for BlockingStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let deadline = self
            .deadline
            .as_mut()
            .map(|deadline| deadline.as_mut().poll(context));
        if let Some(Poll::Ready(())) = deadline {
            self.deadline = None;
            self.messages.close();
            return Poll::Ready(Some(Err(too_late().into())));
        }
        self.messages.poll_recv(context)
    }
}

fn place() -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
    Arc::clone(&PLACES).try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_BLOCKING_CALLS} file calls of this user are under way; try again when some have ended");
        Failure::refused(ErrorReason::Limit, "start", text).into()
    })
}

fn too_late() -> Failure {
    Failure::refused(
        ErrorReason::DeadlineExceeded,
        "wait",
        "the call's deadline passed in the guest",
    )
}

fn parse_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "5é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong:?}");
        }
    }
}

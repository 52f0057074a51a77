//! How a handler makes a file system call that may block: on a thread of its own, in bounded number, up to the
//! client's deadline.
//!
//! A thread that the kernel holds (a hung FUSE mount) cannot be taken back; its call ends at its deadline all the same,
//! and the place it keeps is given back when the kernel lets go.

use std::{
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{Arc, LazyLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use guestline_proto::{MAX_CHUNK_SIZE, v1::ErrorReason};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tonic::{Request, Status, codegen::http::HeaderMap};

use super::status::Failure;

/// Calls that block at once in one worker: each may hold a thread (with some 16 KiB resident) and a chunk or two.
const MAX_BLOCKING_CALLS: usize = 256;

/// Messages of a stream that wait for the connection: one is being sent, one is ready, one is being made.
const STREAM_QUEUE: usize = 2;

/// What all calls that send files have together in one chunk each; a stream whose client does not take it has up to five. More
/// would be memory that is new to the process: the kernel takes longer to give it than to read a file into it.
///
/// Measured with 256 clients that read 4 MiB each after a rest: 1 GiB resident and 620 to 1060 MiB/s without this, and 125 MiB/s
/// where a VM first got that gibibyte from its host; 0.3 GiB and 1170 to 1460 MiB/s with it.
const CHUNKS: usize = 16 * MAX_CHUNK_SIZE;

static PLACES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MAX_BLOCKING_CALLS)));

/// The most of a call's time that is kept for the answer's way: else the clocks of the client and of the server (`in_time`),
/// which run beside ours, end the call first, and without a reason.
const MAX_MARGIN: Duration = Duration::from_millis(100);

/// When the client will no longer want the answer; `None`: it waits for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout"). A tenth of it, at most 100 ms,
    /// is left to the answer.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let timeout = request.metadata().get("grpc-timeout");
        let timeout = timeout.and_then(|value| parse_timeout(value.to_str().ok()?));
        let ours = timeout.map(|timeout| timeout - MAX_MARGIN.min(timeout / 10));
        Self(ours.and_then(|ours| Instant::now().checked_add(ours)))
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
    let (answer, answered) = oneshot::channel();
    on_a_thread(Box::new(move || {
        let result = call();
        drop(place);
        // Who waited for it may be gone.
        let _ = answer.send(result);
    }));
    tokio::select! {
        result = answered => match result {
            Ok(result) => Ok(result?),
            // Dropped without a word.
            Err(_) => Err(panicked().into()),
        },
        () = deadline.passed() => Err(too_late().into()),
    }
}

/// One type for all calls: the code of a task, some kilobytes for each type of one, is there once.
fn on_a_thread(call: Box<dyn FnOnce() + Send>) {
    drop(tokio::task::spawn_blocking(call));
}

/// Whether anybody still waits for the answer of a long call.
#[derive(Debug)]
pub(crate) struct Wanted(Weak<()>);

impl Wanted {
    pub(crate) fn still(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// The same, for a call that takes long and may stop when the client vanished or its deadline passed.
pub(crate) async fn blocking_while_wanted<T: Send + 'static>(
    deadline: Deadline,
    call: impl FnOnce(&Wanted) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    // Goes with this future.
    let waiting = Arc::new(());
    let wanted = Wanted(Arc::downgrade(&waiting));
    blocking(deadline, move || call(&wanted)).await
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
    on_a_thread(Box::new(move || {
        let sink = Sink(sender);
        // Uncaught, a panic would look like the stream's good end. Nothing of the call's is used after it.
        let result = panic::catch_unwind(AssertUnwindSafe(|| call(&sink)));
        if let Err(failure) = result.unwrap_or_else(|_| Err(panicked())) {
            // A client that is gone needs no error.
            let _ = sink.0.blocking_send(Err(failure.into()));
        }
        drop(place);
    }));
    let deadline = deadline.0.map(|at| Box::pin(tokio::time::sleep_until(at)));
    Ok(BlockingStream { messages, deadline })
}

/// A stream of what is there already: at most as many messages as may wait.
pub(crate) fn ready_stream<T>(messages: [T; STREAM_QUEUE]) -> BlockingStream<T> {
    let (sender, waiting) = mpsc::channel(STREAM_QUEUE);
    for message in messages {
        // There is room for all.
        let _ = sender.try_send(Ok(message));
    }
    BlockingStream {
        messages: waiting,
        deadline: None,
    }
}

/// Runs what waits without blocking, up to the client's deadline.
pub(crate) async fn within<T>(
    deadline: Deadline,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Status> {
    tokio::select! {
        result = work => Ok(result?),
        () = deadline.passed() => Err(too_late().into()),
    }
}

/// Runs work that sends messages as it goes and does not block; its error, if any, is the stream's end. It is dropped when
/// the client is gone.
pub(crate) fn live_stream<T: Send + 'static, F>(
    deadline: Deadline,
    work: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
) -> BlockingStream<T>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (sender, messages) = mpsc::channel(STREAM_QUEUE);
    let work = work(sender.clone());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = work => ended,
            () = sender.closed() => Ok(()),
        };
        if let Err(failure) = ended {
            let _ = sender.send(Err(failure.into())).await;
        }
    });
    let deadline = deadline.0.map(|at| Box::pin(tokio::time::sleep_until(at)));
    BlockingStream { messages, deadline }
}

/// What [`blocking_stream`] and [`live_stream`] answer with.
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

/// How large a stream's next chunk may be: as large as there are, unless many calls are under way.
pub(crate) fn chunk_size() -> usize {
    share(MAX_BLOCKING_CALLS - PLACES.available_permits())
}

/// In halves, which a file's pages are a multiple of.
fn share(calls: usize) -> usize {
    MAX_CHUNK_SIZE.min(CHUNKS / calls.max(1).next_power_of_two())
}

fn place() -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
    Arc::clone(&PLACES).try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_BLOCKING_CALLS} file calls of this user are under way; try again when some have ended");
        Failure::refused(ErrorReason::Limit, "start", text).into()
    })
}

pub(super) fn too_late() -> Failure {
    Failure::refused(
        ErrorReason::DeadlineExceeded,
        "wait",
        "the call's deadline passed in the guest",
    )
}

fn panicked() -> Failure {
    let text = "the agent made a mistake; its log says where";
    Failure::refused(ErrorReason::Internal, "call", text)
}

/// What a call's head says of its time.
pub(crate) fn time_limit(head: &HeaderMap) -> Option<Duration> {
    parse_timeout(head.get("grpc-timeout")?.to_str().ok()?)
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
    use guestline_proto::decode_error_detail;
    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;

    fn reason(status: &Status) -> Option<ErrorReason> {
        Some(decode_error_detail(status.details())?.reason())
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_a_reason_and_never_a_streams_good_end() {
        let none = Deadline(None);
        let status = blocking::<()>(none, || panic!("on purpose"))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(reason(&status), Some(ErrorReason::Internal));
        let stream = blocking_stream(none, |sink: &Sink<i32>| {
            sink.send(1).unwrap();
            panic!("on purpose")
        });
        let messages: Vec<_> = stream.unwrap().collect().await;
        let [Ok(1), Err(status)] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(reason(status), Some(ErrorReason::Internal));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_leaves_time_for_the_answer() {
        for (timeout, ours) in [("1S", 900), ("100m", 90), ("10S", 9900)] {
            let mut request = Request::new(());
            let metadata = request.metadata_mut();
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
            let start = Instant::now();
            Deadline::of(&request).passed().await;
            assert_eq!(start.elapsed().as_millis(), ours, "{timeout}");
        }
    }

    #[test]
    fn many_calls_share_what_a_few_have() {
        for few in 0..=16 {
            assert_eq!(share(few), MAX_CHUNK_SIZE);
        }
        for many in 17..=MAX_BLOCKING_CALLS {
            assert!(share(many) * many <= CHUNKS);
            assert!(share(many).is_multiple_of(64 * 1024));
        }
    }

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

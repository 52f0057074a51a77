//! Messages that come asynchronously, for a call that takes them on a blocking thread.
//!
//! ```text
//! client ──► feed ──► a queue of two pieces ──► the call
//! ```
//!
//! When the stream ends early, fails or is dropped, the queue closes without `Finish`, and the call finds that it is
//! incomplete. When the call ends first, its answer goes out without waiting for the rest of the stream.

use bytes::Bytes;
use guestline_proto::MAX_CHUNK_SIZE;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::{
    files::Piece,
    rpc::{
        blocking::{Deadline, blocking},
        status::Failure,
    },
};

/// Pieces between the connection and the disk: one is being written, one is ready.
const QUEUE: usize = 2;

/// What a message that follows the first one is.
#[derive(Debug)]
pub(super) enum Part {
    Start,
    Data(Bytes),
    /// With the number of bytes that were sent, where the message tells it.
    Finish(u64),
    Nothing,
}

/// Runs a call that takes the pieces of a stream. `operation` is the call's name in errors.
pub(super) async fn feed<M, T: Send + 'static>(
    operation: &'static str,
    deadline: Deadline,
    messages: impl Stream<Item = Result<M, Status>> + Unpin,
    part_of: impl Fn(M) -> Part,
    call: impl FnOnce(Receiver<Piece>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let done = blocking(deadline, move || call(queue));
    tokio::pin!(done);
    tokio::select! {
        biased;
        result = &mut done => result,
        fed = pass_on(operation, messages, part_of, sender) => {
            // Also after a mistake of the client: the call has ended when it hears of it.
            let result = done.await;
            fed?;
            result
        }
    }
}

/// Passes on what comes, up to `finish` or the end.
async fn pass_on<M>(
    operation: &'static str,
    mut messages: impl Stream<Item = Result<M, Status>> + Unpin,
    part_of: impl Fn(M) -> Part,
    sender: Sender<Piece>,
) -> Result<(), Failure> {
    // A stream that fails is one that ends early.
    while let Some(Ok(message)) = messages.next().await {
        let piece = match part_of(message) {
            Part::Data(data) if data.len() <= MAX_CHUNK_SIZE => Piece::Data(data),
            Part::Data(data) => {
                let text = format!("`data` has {} bytes; at most {MAX_CHUNK_SIZE}", data.len());
                return Err(Failure::invalid(operation, text));
            }
            Part::Finish(size) => Piece::Finish(size),
            Part::Start => return Err(Failure::invalid(operation, "`start` comes once, first")),
            Part::Nothing => return Err(Failure::invalid(operation, "a message is empty")),
        };
        let last = matches!(piece, Piece::Finish(_));
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
    Ok(())
}

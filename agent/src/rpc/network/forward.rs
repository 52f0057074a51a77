//! The two directions of one Forward, in one task that owns the guest's socket. Dropping the answers is how it learns
//! that the client vanished; the socket then closes at once, whatever either direction waits for.
//!
//! ```text
//! requests ──► upload ────► socket        each waits for the slower side, and holds one piece
//! answers  ◄── download ◄── socket
//! ```

use guestline_proto::{
    MAX_CHUNK_SIZE,
    v1::{
        ErrorReason, ForwardClosed, ForwardOpened, ForwardRequest, ForwardResponse,
        forward_request, forward_response::Message,
    },
};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, Sender},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    network::{Connection, MAX_READ, StreamError},
    rpc::status::Failure,
};

/// Pieces of the guest's that wait for the connection: one is being sent, one is ready.
const QUEUE: usize = 2;
// What network.proto promises, with the one that is being read.
const _: () = assert!((QUEUE + 1) * MAX_READ <= 1024 * 1024);

type Answer = Result<ForwardResponse, Status>;

/// Starts the task, which keeps its place until the socket is closed.
pub(super) fn relay(
    connection: Connection,
    requests: impl Stream<Item = Result<ForwardRequest, Status>> + Send + Unpin + 'static,
    place: OwnedSemaphorePermit,
) -> ReceiverStream<Answer> {
    let (sender, answers) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = sender.closed() => return,
            ended = both_ways(&connection, requests, &sender) => ended,
        };
        drop((connection, place));
        if let Err(status) = ended {
            // A client that is gone needs no error.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(answers)
}

async fn both_ways(
    connection: &Connection,
    requests: impl Stream<Item = Result<ForwardRequest, Status>> + Unpin,
    answers: &Sender<Answer>,
) -> Result<(), Status> {
    let (taken, ()) =
        tokio::try_join!(upload(connection, requests), download(connection, answers))?;
    // Said last: what the guest sent before it stopped reading comes first.
    Ok(taken.map_err(Failure::from)?)
}

/// Up to `closed`, or until the guest takes no more, which is the inner error.
async fn upload(
    connection: &Connection,
    mut requests: impl Stream<Item = Result<ForwardRequest, Status>> + Unpin,
) -> Result<Result<(), StreamError>, Status> {
    use forward_request::Message;
    let invalid = |text: &str| Err(Failure::invalid("forward", text).into());
    loop {
        let Some(request) = requests.next().await.transpose()? else {
            let text = "the requests ended without `closed`";
            return Err(Failure::refused(ErrorReason::Incomplete, "forward", text).into());
        };
        match request.message {
            Some(Message::Data(data)) if data.len() > MAX_CHUNK_SIZE => {
                return invalid(&format!("`data` has more than {MAX_CHUNK_SIZE} bytes"));
            }
            Some(Message::Data(data)) => {
                if let Err(error) = connection.write(data).await {
                    return Ok(Err(error));
                }
            }
            Some(Message::Closed(_)) => return Ok(connection.finish()),
            Some(Message::Open(_)) => return invalid("`open` comes once, first"),
            None => return invalid("a message is empty or unknown"),
        }
    }
}

/// Up to the guest's end.
async fn download(connection: &Connection, answers: &Sender<Answer>) -> Result<(), Status> {
    let mut message = Message::Opened(ForwardOpened {});
    loop {
        let is_last = matches!(message, Message::Closed(_));
        let answer = ForwardResponse {
            message: Some(message),
        };
        // Only when the client is gone, and this with it.
        if answers.send(Ok(answer)).await.is_err() || is_last {
            return Ok(());
        }
        let piece = connection.read().await.map_err(Failure::from)?;
        message = if piece.is_empty() {
            Message::Closed(ForwardClosed {})
        } else {
            Message::Data(piece.into())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use bytes::Bytes;
    use forward_request::Message as Said;
    use guestline_proto::v1::ForwardOpen;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Semaphore,
    };
    use tonic::Code;

    use super::*;
    use crate::network::connect_tcp;

    /// The answers to these requests, and the guest's side.
    async fn relayed(requests: Vec<Option<Said>>) -> (ReceiverStream<Answer>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connection, accepted) = tokio::join!(connect_tcp(None, port), listener.accept());
        let requests = requests
            .into_iter()
            .map(|message| Ok(ForwardRequest { message }));
        let places = Arc::new(Semaphore::new(1));
        let place = places.try_acquire_owned().unwrap();
        let answers = relay(connection.unwrap(), tokio_stream::iter(requests), place);
        (answers, accepted.unwrap().0)
    }

    fn data(length: usize) -> Option<Said> {
        Some(Said::Data(vec![7; length].into()))
    }

    async fn failure(mut answers: ReceiverStream<Answer>) -> Code {
        loop {
            match answers.next().await.expect("it fails before it ends") {
                Ok(_) => {}
                Err(status) => return status.code(),
            }
        }
    }

    #[tokio::test]
    async fn both_sides_say_closed_and_the_call_ends_well() {
        let closed = Some(Said::Closed(ForwardClosed {}));
        let (answers, mut guest) = relayed(vec![data(3), closed]).await;
        let mut heard = Vec::new();
        guest.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [7; 3]);
        guest.write_all(b"answer").await.unwrap();
        drop(guest);
        let answers: Vec<_> = answers
            .map(|answer| answer.unwrap().message)
            .collect()
            .await;
        let expected = [
            Message::Opened(ForwardOpened {}),
            Message::Data(Bytes::from_static(b"answer")),
            Message::Closed(ForwardClosed {}),
        ];
        assert_eq!(answers, expected.map(Some));
    }

    #[tokio::test]
    async fn requests_that_end_without_closed_are_incomplete_and_a_reset_for_the_guest() {
        let (answers, mut guest) = relayed(vec![data(3)]).await;
        assert_eq!(failure(answers).await, Code::Aborted);
        let heard = guest.read_to_end(&mut Vec::new()).await;
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn messages_that_are_wrong_or_misplaced_end_the_call() {
        let open = Some(Said::Open(ForwardOpen::default()));
        for wrong in [None, open, data(MAX_CHUNK_SIZE + 1)] {
            let (answers, _guest) = relayed(vec![wrong]).await;
            assert_eq!(failure(answers).await, Code::InvalidArgument);
        }
    }
}

//! The write call: the first message says what to write, the others are fed to a blocking write.

use std::iter;

use guestline_proto::v1::{WriteRequest, write_request::Message};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{
    convert::Home,
    feed::{Part, feed},
};
use crate::{
    files::{self, Written},
    rpc::{blocking::Deadline, status::Failure},
};

/// Takes one write from its first message to its end.
pub(super) async fn receive(
    home: &Home,
    deadline: Deadline,
    mut messages: impl Stream<Item = Result<WriteRequest, Status>> + Unpin,
) -> Result<Written, Status> {
    let first = messages.next().await.transpose()?;
    let Some(Message::Start(start)) = first.and_then(|request| request.message) else {
        return Err(Failure::invalid("write", "the first message is not `start`").into());
    };
    let write = home.write(start)?;
    feed("write", deadline, messages, part, move |mut queue| {
        let pieces = iter::from_fn(|| queue.blocking_recv());
        Ok(files::write(&write, pieces)?)
    })
    .await
}

fn part(request: WriteRequest) -> Part {
    match request.message {
        Some(Message::Start(_)) => Part::Start,
        Some(Message::Data(data)) => Part::Data(data),
        Some(Message::Finish(finish)) => Part::Finish(finish.size),
        None => Part::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use bytes::Bytes;
    use guestline_proto::{
        MAX_CHUNK_SIZE,
        v1::{WriteFinish, WriteStart},
    };
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::{Code, Request};

    use super::*;

    fn message(message: Message) -> Result<WriteRequest, Status> {
        let message = Some(message);
        Ok(WriteRequest { message })
    }

    fn start(path: &str) -> Result<WriteRequest, Status> {
        message(Message::Start(WriteStart {
            path: Bytes::copy_from_slice(path.as_bytes()),
            ..WriteStart::default()
        }))
    }

    fn data(size: usize) -> Result<WriteRequest, Status> {
        message(Message::Data(vec![b'x'; size].into()))
    }

    fn finish(size: u64) -> Result<WriteRequest, Status> {
        message(Message::Finish(WriteFinish { size }))
    }

    /// What a write of these messages comes to, and the names in its home afterwards.
    async fn write(messages: Vec<Result<WriteRequest, Status>>) -> (Result<u64, Code>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home(directory.path().into());
        let deadline = Deadline::of(&Request::new(()));
        let written = receive(&home, deadline, tokio_stream::iter(messages)).await;
        let names = fs::read_dir(directory.path()).unwrap().count();
        (written.map(|it| it.bytes).map_err(|it| it.code()), names)
    }

    #[tokio::test]
    async fn a_write_is_whole_or_not_there() {
        let whole = vec![
            start("file"),
            data(MAX_CHUNK_SIZE),
            data(3),
            finish(MAX_CHUNK_SIZE as u64 + 3),
        ];
        assert_eq!(write(whole).await, (Ok(MAX_CHUNK_SIZE as u64 + 3), 1));
        for (messages, code) in [
            (vec![], Code::InvalidArgument),
            (vec![data(1)], Code::InvalidArgument),
            (vec![start("")], Code::InvalidArgument),
            (vec![start("a\0b")], Code::InvalidArgument),
            (vec![start("file"), start("file")], Code::InvalidArgument),
            (
                vec![start("file"), data(MAX_CHUNK_SIZE + 1)],
                Code::InvalidArgument,
            ),
            (vec![start("file"), data(1)], Code::Aborted),
            (
                vec![start("file"), Err(Status::cancelled(""))],
                Code::Aborted,
            ),
            (vec![start("file"), data(1), finish(2)], Code::DataLoss),
            (vec![start("no/file"), data(1), finish(1)], Code::NotFound),
        ] {
            let case = format!("{messages:?}")
                .chars()
                .take(200)
                .collect::<String>();
            assert_eq!(write(messages).await, (Err(code), 0), "{case}");
        }
    }

    #[tokio::test]
    async fn a_refusal_does_not_wait_for_the_rest_of_the_stream() {
        let (sender, messages) = mpsc::channel(1);
        sender.send(start("missing/file")).await.unwrap();
        let home = Home("/".into());
        let deadline = Deadline::of(&Request::new(()));
        let call = receive(&home, deadline, ReceiverStream::new(messages));
        let result = tokio::time::timeout(Duration::from_secs(60), call).await;
        assert_eq!(result.unwrap().unwrap_err().code(), Code::NotFound);
        drop(sender);
    }
}

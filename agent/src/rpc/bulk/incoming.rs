//! The body of a request as messages. Data comes in the pieces in which the frames brought it, each as a message of its
//! own, which the calls of this kind take as the same.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use guestline_proto::{MAX_CHUNK_SIZE, MAX_MESSAGE_SIZE};
use http_body::Body as _;
use tokio_stream::Stream;
use tonic::{Status, body::Body};

use super::Bulk;
use crate::rpc::status::Failure;

/// Of a message: a flag and its length.
const MESSAGE_HEAD: usize = 5;

/// The most that a length takes which is not larger than a message.
const MAX_LENGTH_BYTES: usize = 4;

/// Messages as they come. Ends with an error where the body breaks off or is none of ours.
pub(in crate::rpc) struct Incoming<M> {
    body: Body,
    /// What came and was not looked at.
    chunk: Bytes,
    state: State,
    messages: PhantomData<fn() -> M>,
}

enum State {
    /// So far of a message's head, and of the head of its first field.
    Head(Vec<u8>),
    /// How many bytes of data are still to come.
    Data(usize),
    /// Another message, of this length, as far as it came.
    Whole(usize, BytesMut),
    Ended,
}

impl<M: Bulk> Incoming<M> {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
            state: State::Head(Vec::new()),
            messages: PhantomData,
        }
    }

    /// The next message, as far as what came will do.
    fn take(&mut self) -> Result<Option<M>, Failure> {
        loop {
            match &mut self.state {
                State::Data(0) => self.state = State::Head(Vec::new()),
                State::Data(left) if !self.chunk.is_empty() => {
                    let piece = self.chunk.split_to(self.chunk.len().min(*left));
                    *left -= piece.len();
                    return Ok(Some(M::of_data(piece)));
                }
                State::Head(head) if !self.chunk.is_empty() => {
                    head.push(self.chunk[0]);
                    let _ = self.chunk.split_to(1);
                    if let Some(next) = after_head::<M>(head)? {
                        self.state = next;
                    }
                }
                State::Whole(length, bytes) => {
                    let rest = *length - bytes.len();
                    let piece = self.chunk.split_to(self.chunk.len().min(rest));
                    bytes.extend_from_slice(&piece);
                    if bytes.len() < *length {
                        return Ok(None);
                    }
                    let message = M::decode(bytes.split().freeze());
                    self.state = State::Head(Vec::new());
                    let wrong = |error: prost::DecodeError| malformed(&error.to_string());
                    return message.map(Some).map_err(wrong);
                }
                State::Data(_) | State::Head(_) | State::Ended => return Ok(None),
            }
        }
    }

    /// Whether the body may end here.
    fn is_between(&self) -> bool {
        match &self.state {
            State::Head(head) => head.is_empty(),
            State::Data(left) => *left == 0,
            State::Whole(..) => false,
            State::Ended => true,
        }
    }
}

/// What the bytes of a head are the head of; `None`: more of it is needed.
fn after_head<M: Bulk>(head: &[u8]) -> Result<Option<State>, Failure> {
    let Some((message, field)) = head.split_first_chunk::<MESSAGE_HEAD>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *message;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 {
        return Err(malformed("it is compressed"));
    }
    if length > MAX_MESSAGE_SIZE {
        return Err(malformed(&format!(
            "it has {length} bytes; at most {MAX_MESSAGE_SIZE}"
        )));
    }
    let whole = || Ok(Some(State::Whole(length, BytesMut::from(field))));
    match field.split_first() {
        _ if field.len() == length => whole(),
        None => Ok(None),
        Some((&key, size)) if key == M::DATA << 3 | 2 => {
            let ended = size.last().is_some_and(|byte| byte & 0x80 == 0);
            if !ended && size.len() < MAX_LENGTH_BYTES {
                return Ok(None);
            }
            let mut rest = size;
            let data = prost::encoding::decode_varint(&mut rest);
            match data.ok().and_then(|data| usize::try_from(data).ok()) {
                // Larger ones, and what has more fields, are for the handler to refuse or to take.
                Some(data) if data <= MAX_CHUNK_SIZE && field.len() + data == length => {
                    Ok(Some(State::Data(data)))
                }
                _ => whole(),
            }
        }
        Some(_) => whole(),
    }
}

fn malformed(why: &str) -> Failure {
    Failure::invalid("receive", format!("a message cannot be read: {why}"))
}

impl<M: Bulk> Stream for Incoming<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(failure) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(failure.into())));
                }
            }
            if matches!(self.state, State::Ended) {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(status)) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    let whole = self.is_between();
                    self.state = State::Ended;
                    let cut = || Err(malformed("the stream ends within it").into());
                    return Poll::Ready((!whole).then(cut));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use guestline_proto::v1::{WriteFinish, WriteRequest, WriteStart, write_request::Message};
    use http_body::Frame;
    use prost::Message as _;
    use tokio_stream::StreamExt;

    use super::*;

    /// A body of these frames.
    struct Frames(std::vec::IntoIter<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.next().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn prefixed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn wire(message: Message) -> Vec<u8> {
        let message = Some(message);
        prefixed(&WriteRequest { message }.encode_to_vec())
    }

    /// The data that came, the other messages, and whether the end was an error.
    async fn received(bytes: &[u8], frame: usize) -> (Vec<u8>, Vec<Message>, bool) {
        let frames: Vec<Bytes> = bytes.chunks(frame).map(Bytes::copy_from_slice).collect();
        let body = Body::new(Frames(frames.into_iter()));
        let mut incoming = Incoming::<WriteRequest>::new(body);
        let (mut data, mut others) = (Vec::new(), Vec::new());
        while let Some(message) = incoming.next().await {
            match message {
                Ok(request) => match request.message {
                    Some(Message::Data(piece)) => data.extend_from_slice(&piece),
                    other => others.extend(other),
                },
                Err(_) => return (data, others, true),
            }
        }
        (data, others, false)
    }

    #[tokio::test]
    async fn messages_come_whole_however_the_frames_are_cut() {
        let start = Message::Start(WriteStart {
            path: "some/file".into(),
            ..WriteStart::default()
        });
        let finish = Message::Finish(WriteFinish { size: 3000 });
        let content: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        let stream = [
            wire(start.clone()),
            wire(Message::Data(content[..200].to_vec().into())),
            wire(Message::Data(Bytes::new())),
            wire(Message::Data(content[200..].to_vec().into())),
            wire(finish.clone()),
        ]
        .concat();
        for frame in [1, 2, 3, 7, 64, 1000, stream.len()] {
            let (data, others, failed) = received(&stream, frame).await;
            assert!(data == content && !failed, "frames of {frame}");
            assert_eq!(others, [start.clone(), finish.clone()]);
        }
        for cut in [3, 6, stream.len() - 1] {
            assert!(received(&stream[..cut], 5).await.2, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_is_none_of_ours_is_an_error_and_nothing_is_allocated_for_it() {
        let mut compressed = wire(Message::Data(b"x".to_vec().into()));
        compressed[0] = 1;
        let huge = [0, 0xff, 0xff, 0xff, 0xff, 0x12, 0xff, 0xff, 0xff, 0xff];
        // A field that says that it is longer than its message.
        let false_length = prefixed(&[0x12, 9, b'x']);
        for bytes in [&compressed[..], &huge, &false_length] {
            assert!(received(bytes, 4).await.2, "{bytes:?}");
        }
        // Two fields of one oneof: the last one counts, as Protocol Buffers has it.
        let two = prefixed(&[0x12, 1, b'x', 0x12, 1, b'y']);
        assert_eq!(received(&two, 3).await.0, b"y");
    }
}

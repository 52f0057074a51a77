//! Messages as the body of an answer (gRPC over HTTP/2, "Length-Prefixed-Message"), and the status as its trailers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::{Status, codegen::http::HeaderMap};

use super::Bulk;

/// A message's head: a flag and its length; then a field's head: its number and its length, of at most 2 MiB here.
const HEADS: usize = 5 + 1 + 4;

/// The wire type of a field with a length (Protocol Buffers, "Encoding").
const WITH_LENGTH: u8 = 2;

/// Sends what a stream gives.
pub(super) struct Outgoing<S> {
    messages: S,
    /// Goes out next, behind its head.
    data: Option<Bytes>,
    ended: bool,
}

impl<S> Outgoing<S> {
    pub(super) fn new(messages: S) -> Self {
        Self {
            messages,
            data: None,
            ended: false,
        }
    }
}

impl<S, M> Body for Outgoing<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Bulk,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(Pin::new(&mut self.messages).poll_next(context)) {
            Some(Ok(message)) => {
                let (head, data) = encode(message);
                self.data = data;
                return Poll::Ready(Some(Ok(Frame::data(head))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let told = status.add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }
}

/// The heads, and the data that follows them; or the whole message.
fn encode<M: Bulk>(message: M) -> (Bytes, Option<Bytes>) {
    let data = match message.into_data() {
        Ok(data) if !data.is_empty() => data,
        Ok(data) => return (whole(&M::of_data(data)), None),
        Err(other) => return (whole(&other), None),
    };
    let mut field = BytesMut::with_capacity(HEADS);
    field.put_u8(M::DATA << 3 | WITH_LENGTH);
    prost::encoding::encode_varint(data.len() as u64, &mut field);
    let mut head = BytesMut::with_capacity(HEADS);
    head.put_u8(0);
    // At most a chunk, which is far less than 4 GiB.
    head.put_u32((field.len() + data.len()) as u32);
    head.extend_from_slice(&field);
    (head.freeze(), Some(data))
}

fn whole(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEADS + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    // A BytesMut grows as it must.
    message
        .encode(&mut bytes)
        .expect("a buffer that grows has room");
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use guestline_proto::v1::{Metadata, ReadResponse, read_response::Message};
    use prost::Message as _;

    use super::*;

    /// Data and trailers of a body.
    async fn sent(messages: Vec<Result<ReadResponse, Status>>) -> (Vec<Bytes>, Option<HeaderMap>) {
        let mut body = Outgoing::new(tokio_stream::iter(messages));
        let (mut data, mut trailers) = (Vec::new(), None);
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        (data, trailers)
    }

    fn message(message: Message) -> ReadResponse {
        ReadResponse {
            message: Some(message),
        }
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_protocol_buffers_and_data_is_not_copied() {
        let opened = message(Message::Opened(Metadata {
            size: 700,
            ..Metadata::default()
        }));
        let data = Bytes::from(vec![7; 700]);
        let (address, data) = (data.as_ptr(), message(Message::Data(data)));
        let empty = message(Message::Data(Bytes::new()));
        let all = [opened, data, empty];
        let (frames, trailers) = sent(all.iter().cloned().map(Ok).collect()).await;
        assert!(frames.iter().any(|frame| frame.as_ptr() == address));
        let mut expected = Vec::new();
        for message in &all {
            expected.push(0);
            expected.extend((message.encoded_len() as u32).to_be_bytes());
            message.encode(&mut expected).unwrap();
        }
        assert_eq!(frames.concat(), expected);
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }

    #[tokio::test]
    async fn an_error_is_the_trailers() {
        let messages = vec![Err(Status::not_found("no such file"))];
        let (frames, trailers) = sent(messages).await;
        let trailers = trailers.unwrap();
        assert!(frames.is_empty());
        assert_eq!(trailers["grpc-status"], "5");
        assert_eq!(trailers["grpc-message"], "no%20such%20file");
    }
}

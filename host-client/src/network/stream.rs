//! One forwarded stream, as Tokio's readers and writers want it.
//!
//! ```text
//! opened ──► bytes both ways ──► closed by either side, and then by the other ──► the call ends
//!   └──────── dropped before both closed: the guest's socket is closed at once, TCP with a reset
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use guestline_proto::v1::{
    ForwardClosed, ForwardOpen, ForwardRequest, ForwardResponse, forward_request,
    forward_response::Message, network_client::NetworkClient,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::PollSender;
use tonic::Streaming;

use crate::{Error, Vm, channel::Channel};

/// Pieces on their way besides the HTTP/2 window: one being sent, one ready.
const QUEUE: usize = 2;

/// The largest piece that one write takes.
const MAX_WRITE: usize = 256 * 1024;

/// A byte stream to what listens in the guest.
///
/// Reads and writes fail with an [`io::Error`] whose kind is that of the guest's errno, and which holds the [`Error`].
/// [`tokio::io::AsyncWriteExt::shutdown`] tells the guest that no more comes; reading goes on after it. The later of the
/// two, the shutdown and the end of reading, waits until the guest's kernel has taken all. Dropping the stream before both
/// closes the guest's socket: TCP gets a reset, so that a stream that was cut is not taken for a whole one.
#[derive(Debug)]
pub struct ForwardStream {
    vm: Vm,
    requests: PollSender<ForwardRequest>,
    responses: Streaming<ForwardResponse>,
    /// What came and is not read yet.
    rest: Bytes,
    /// The guest's side said `closed`.
    has_ended: bool,
    /// The call has ended, which is told once.
    is_over: bool,
}

impl ForwardStream {
    pub(super) async fn begin(
        vm: Vm,
        mut client: NetworkClient<Channel>,
        open: ForwardOpen,
    ) -> Result<Self, Error> {
        let (requests, queue) = mpsc::channel(QUEUE);
        // There is room: it is the first.
        let _ = requests.try_send(request(forward_request::Message::Open(open)));
        let answer = client.forward(ReceiverStream::new(queue)).await;
        let mut responses = answer.map_err(|status| vm.error(status))?.into_inner();
        let first = responses.message().await;
        match first.map_err(|status| vm.error(status))? {
            Some(ForwardResponse {
                message: Some(Message::Opened(_)),
            }) => Ok(Self {
                vm,
                requests: PollSender::new(requests),
                responses,
                rest: Bytes::new(),
                has_ended: false,
                is_over: false,
            }),
            Some(_) => Err(Error::Protocol(
                "a forward that does not begin with opened".into(),
            )),
            None => Err(Error::Lost(None)),
        }
    }

    /// The next piece; nothing at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let next = ready!(Pin::new(&mut self.responses).poll_next(context));
        let answer = next.ok_or(Error::Lost(None))?;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        Poll::Ready(match answer.message {
            Some(Message::Data(data)) => Ok(Some(data)),
            Some(Message::Closed(_)) => Ok(None),
            _ => Err(Error::Protocol(
                "a forward answered something unknown".into(),
            )),
        })
    }

    /// Waits for the end of the call, once both sides have said `closed`: what is queued here is on no way yet.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        let next = ready!(Pin::new(&mut self.responses).poll_next(context));
        self.is_over = true;
        Poll::Ready(match next {
            None => Ok(()),
            Some(Ok(_)) => Err(io_error(Error::Protocol(
                "a forward answered after it was closed".into(),
            ))),
            Some(Err(status)) => Err(io_error(self.vm.error(status))),
        })
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        message: impl FnOnce() -> forward_request::Message,
    ) -> Poll<io::Result<()>> {
        // The call ended; reading tells why.
        let gone = |_| io::ErrorKind::BrokenPipe;
        ready!(self.requests.poll_reserve(context)).map_err(gone)?;
        self.requests.send_item(request(message())).map_err(gone)?;
        Poll::Ready(Ok(()))
    }
}

fn request(message: forward_request::Message) -> ForwardRequest {
    ForwardRequest {
        message: Some(message),
    }
}

impl AsyncRead for ForwardStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.has_ended {
            match ready!(self.poll_piece(context)) {
                Ok(Some(piece)) => self.rest = piece,
                Ok(None) => self.has_ended = true,
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        if self.rest.is_empty() && self.requests.is_closed() {
            return self.poll_over(context);
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ForwardStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let piece = &bytes[..bytes.len().min(MAX_WRITE)];
        if !piece.is_empty() {
            let data = || forward_request::Message::Data(Bytes::copy_from_slice(piece));
            ready!(self.poll_send(context, data))?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    /// What was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.requests.is_closed() {
            let closed = || forward_request::Message::Closed(ForwardClosed {});
            ready!(self.poll_send(context, closed))?;
            self.requests.close();
        }
        if self.has_ended {
            return self.poll_over(context);
        }
        Poll::Ready(Ok(()))
    }
}

fn io_error(error: Error) -> io::Error {
    let kind = match (&error, error.errno()) {
        (_, Some(errno)) => io::Error::from_raw_os_error(errno).kind(),
        (Error::Connect { .. } | Error::Lost(_), None) => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

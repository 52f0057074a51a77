//! File data between the connection and the domain without a copy on the way. On the wire it is gRPC as ever; tonic's
//! codec would copy each chunk once more, into or out of a buffer of its own, which took a tenth of a transfer's time.
//!
//! ```text
//! out: handler ──stream──► Outgoing ──► the answer's body   heads of messages, and chunks as they are
//! in:  the request's body ──► Incoming ──stream──► handler   chunks as the frames brought them
//! ```
//!
//! [`takes_data`] gives such a request's body to the handler, [`sends_data`] the handler's body to the connection; metadata,
//! limits, deadlines and errors are tonic's, as for every other call.

mod incoming;
mod outgoing;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use guestline_proto::v1::{
    PullResponse, PushRequest, ReadResponse, WriteRequest, pull_response, push_request,
    read_response, write_request,
};
use tokio_stream::{Empty, Stream};
use tonic::{Request, Response, Status, Streaming, body::Body, codegen::http};

use super::calls::{self, Answering, Handler, answers};
use incoming::Incoming;
use outgoing::Outgoing;

/// A message that may be nothing but data: one field of bytes, alone in its oneof.
pub(super) trait Bulk: prost::Message + Default {
    /// The field's number, below 16.
    const DATA: u8;

    /// A message of this data.
    fn of_data(data: Bytes) -> Self;

    /// The data, where it is all that the message has.
    fn into_data(self) -> Result<Bytes, Self>;
}

macro_rules! bulk {
    ($message:ty, $module:ident, $number:literal) => {
        impl Bulk for $message {
            const DATA: u8 = $number;

            fn of_data(data: Bytes) -> Self {
                Self {
                    message: Some($module::Message::Data(data)),
                }
            }

            fn into_data(self) -> Result<Bytes, Self> {
                match self.message {
                    Some($module::Message::Data(data)) => Ok(data),
                    message => Err(Self { message }),
                }
            }
        }
    };
}

bulk!(ReadResponse, read_response, 2);
bulk!(PullResponse, pull_response, 1);
bulk!(WriteRequest, write_request, 2);
bulk!(PushRequest, push_request, 2);

/// The stream that tonic sees of an answer whose body is our own: nothing.
pub(super) type Silent<M> = Empty<Result<M, Status>>;

/// An answer of these messages.
pub(super) fn answer<M: Bulk + Send + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
) -> Response<Silent<M>> {
    let mut response = Response::new(tokio_stream::empty());
    let body = Carried::new(Body::new(Outgoing::new(messages)));
    response.extensions_mut().insert(body);
    response
}

/// The messages of such a request.
pub(super) fn messages<M: Bulk>(mut request: Request<Streaming<M>>) -> Incoming<M> {
    let carried = request.extensions_mut().remove::<Carried>();
    let body = carried.and_then(|carried| carried.take());
    Incoming::new(body.unwrap_or_default())
}

/// A body on its way through tonic, which clones extensions but not bodies.
#[derive(Clone, Debug)]
struct Carried(Arc<Mutex<Option<Body>>>);

impl Carried {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A call whose answers are data: their body is the handler's own.
pub(super) fn sends_data<S, Q, A, T>(
    service: Arc<S>,
    request: http::Request<Body>,
    handler: Handler<S, Q, T>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: prost::Message + Default + 'static,
    A: prost::Message + 'static,
    T: Stream<Item = Result<A, Status>> + Send + 'static,
{
    given(answers(service, request, handler))
}

fn given(answering: Answering) -> Answering {
    Box::pin(async move {
        let mut response = answering.await?;
        let carried = response.extensions_mut().remove::<Carried>();
        if let Some(body) = carried.and_then(|carried| carried.take()) {
            *response.body_mut() = body;
        }
        Ok(response)
    })
}

/// A call whose requests are data: their body goes to the handler as it is.
pub(super) fn takes_data<S, Q, A>(
    service: Arc<S>,
    mut request: http::Request<Body>,
    handler: Handler<S, Streaming<Q>, A>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: prost::Message + Default + 'static,
    A: prost::Message + 'static,
{
    let body = Carried::new(std::mem::take(request.body_mut()));
    request.extensions_mut().insert(body);
    calls::messages(service, request, handler)
}

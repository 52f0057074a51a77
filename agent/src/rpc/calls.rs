//! From a call's path to its handler, and its messages from bytes to types and back.
//!
//! tonic's generated servers do the same with all of tonic's machinery once more for each type of message, which was a tenth
//! of the agent. Here that machinery is there once, for bytes, and a method adds its two conversions alone: framing,
//! metadata, limits, deadlines and errors are tonic's as ever.
//!
//! ```text
//! http::Request ─► calls! (by its path) ─► tonic's Grpc<Codec> ─► Method: decode ─► handler ─► encode ─► http::Response
//! ```

use std::{
    convert::Infallible,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use guestline_proto::MAX_MESSAGE_SIZE;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http,
    server::{
        ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService,
    },
};

/// An answer on its way. Never an error: a refusal is an answer too.
pub(crate) type Answering =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// What a handler does.
type Handling<'a, A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send + 'a>>;

/// A handler, as its service's trait has it.
pub(super) type Handler<S, Q, A> = for<'a> fn(&'a S, Request<Q>) -> Handling<'a, A>;

/// Answers, each encoded.
struct Encoded(Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>);

impl Stream for Encoded {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The methods of one service.
pub(crate) trait Calls: Send + Sync + 'static {
    /// As it is in a path.
    const NAME: &'static str;

    /// All names of methods.
    #[cfg(test)]
    const METHODS: &'static [&'static str];

    /// Begins a call. `None`: the service has no such method.
    fn call(self: Arc<Self>, method: &str, request: http::Request<Body>) -> Option<Answering>;
}

/// `calls!(Service, "its.Name", kind "Method" => handler, …)`, where a kind is one of the functions below, or of `bulk`.
macro_rules! calls {
    ($service:ty, $name:literal, $($kind:ident $method:literal => $handler:ident,)*) => {
        impl $crate::rpc::calls::Calls for $service {
            const NAME: &'static str = $name;

            #[cfg(test)]
            const METHODS: &'static [&'static str] = &[$($method),*];

            fn call(
                self: std::sync::Arc<Self>,
                method: &str,
                request: tonic::codegen::http::Request<tonic::body::Body>,
            ) -> Option<$crate::rpc::calls::Answering> {
                Some(match method {
                    $($method => $kind(self, request, |service, request| service.$handler(request)),)*
                    _ => return None,
                })
            }
        }
    };
}
pub(super) use calls;

/// One message, one answer.
pub(super) fn unary<S, Q, A>(
    service: Arc<S>,
    request: http::Request<Body>,
    handler: Handler<S, Q, A>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    let method = Method(Box::new(move |request: Request<Bytes>| {
        let service = Arc::clone(&service);
        Box::pin(async move {
            let answer = handler(&service, decoded(request)?).await?;
            Ok(answer.map(|message| encoded(&message)))
        })
    }));
    Box::pin(async move { Ok(grpc(Raw).unary(method, request).await) })
}

/// One message, a stream of answers.
pub(super) fn answers<S, Q, A, T>(
    service: Arc<S>,
    request: http::Request<Body>,
    handler: Handler<S, Q, T>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
    T: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let method = Method(Box::new(move |request: Request<Bytes>| {
        let service = Arc::clone(&service);
        Box::pin(async move {
            let answer = handler(&service, decoded(request)?).await?;
            Ok(answer.map(all_encoded))
        })
    }));
    Box::pin(async move { Ok(grpc(Raw).server_streaming(method, request).await) })
}

/// A stream of messages, one answer.
pub(super) fn messages<S, Q, A>(
    service: Arc<S>,
    request: http::Request<Body>,
    handler: Handler<S, Streaming<Q>, A>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    let method = Method(Box::new(move |request| {
        let service = Arc::clone(&service);
        Box::pin(async move {
            let answer = handler(&service, request).await?;
            Ok(answer.map(|message| encoded(&message)))
        })
    }));
    Box::pin(async move { Ok(grpc(Typed::new()).client_streaming(method, request).await) })
}

/// A stream each way.
pub(super) fn both<S, Q, A, T>(
    service: Arc<S>,
    request: http::Request<Body>,
    handler: Handler<S, Streaming<Q>, T>,
) -> Answering
where
    S: Send + Sync + 'static,
    Q: Message + Default + 'static,
    A: Message + 'static,
    T: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let method = Method(Box::new(move |request| {
        let service = Arc::clone(&service);
        Box::pin(async move { Ok(handler(&service, request).await?.map(all_encoded)) })
    }));
    Box::pin(async move { Ok(grpc(Typed::new()).streaming(method, request).await) })
}

fn grpc<C: Codec>(codec: C) -> Grpc<C> {
    Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_SIZE)
}

/// As tonic's own codec says it (the protocol's table of statuses has INTERNAL for what cannot be parsed).
fn unreadable(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

#[allow(clippy::result_large_err, reason = "the type is tonic's")]
fn decoded<Q: Message + Default>(request: Request<Bytes>) -> Result<Request<Q>, Status> {
    let (metadata, extensions, bytes) = request.into_parts();
    let message = Q::decode(bytes).map_err(unreadable)?;
    Ok(Request::from_parts(metadata, extensions, message))
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn all_encoded<A: Message>(
    answers: impl Stream<Item = Result<A, Status>> + Send + 'static,
) -> Encoded {
    Encoded(Box::pin(
        answers.map(|answer| answer.map(|message| encoded(&message))),
    ))
}

/// A method of a service, from what comes in to what goes out.
struct Method<I, O>(Box<dyn FnMut(Request<I>) -> Handling<'static, O> + Send>);

impl UnaryService<Bytes> for Method<Bytes, Bytes> {
    type Response = Bytes;
    type Future = Handling<'static, Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        (self.0)(request)
    }
}

impl ServerStreamingService<Bytes> for Method<Bytes, Encoded> {
    type Response = Bytes;
    type ResponseStream = Encoded;
    type Future = Handling<'static, Encoded>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        (self.0)(request)
    }
}

impl<Q> ClientStreamingService<Q> for Method<Streaming<Q>, Bytes> {
    type Response = Bytes;
    type Future = Handling<'static, Bytes>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        (self.0)(request)
    }
}

impl<Q> StreamingService<Q> for Method<Streaming<Q>, Encoded> {
    type Response = Bytes;
    type ResponseStream = Encoded;
    type Future = Handling<'static, Encoded>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        (self.0)(request)
    }
}

/// Messages as their bytes, both ways.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Messages in as what they are, and out as their bytes: for requests that are streams.
struct Typed<Q>(PhantomData<fn() -> Q>);

impl<Q> Typed<Q> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + Default + 'static> Codec for Typed<Q> {
    type Encode = Bytes;
    type Decode = Q;
    type Encoder = Raw;
    type Decoder = Self;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<Q: Message + Default + 'static> Decoder for Typed<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        Q::decode(buffer).map(Some).map_err(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::rpc::{FilesService, NetworkService, ProcessesService, SystemService};

    #[test]
    fn each_method_of_the_protocol_has_its_call() {
        let set = FileDescriptorSet::decode(guestline_proto::FILE_DESCRIPTOR_SET).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let mut declared = Vec::new();
        for service in services {
            let methods = service.method.iter().map(|method| method.name());
            declared.push((service.name(), methods.collect::<Vec<_>>()));
        }
        let mut answered = [
            methods::<FilesService>(),
            methods::<NetworkService>(),
            methods::<ProcessesService>(),
            methods::<SystemService>(),
        ];
        for (_, methods) in declared.iter_mut().chain(&mut answered) {
            methods.sort_unstable();
        }
        declared.sort_unstable();
        assert_eq!(declared, answered);
    }

    fn methods<C: Calls>() -> (&'static str, Vec<&'static str>) {
        let (package, name) = C::NAME.rsplit_once('.').unwrap();
        assert_eq!(package, "guestline.v1");
        (name, C::METHODS.to_vec())
    }
}

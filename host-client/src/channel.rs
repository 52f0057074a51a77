//! The HTTP/2 connection of one user of one VM: opened by the first call, shared by all, and opened anew for the first call
//! that finds it gone or told to go. A call that was never sent goes over the new connection; one that was sent is never
//! sent twice.
//!
//! tonic's own channel loses a call that meets a connection in the moment when the agent tells it to go (GOAWAY), as it does
//! when the user's groups change or the guest was resumed: <https://www.rfc-editor.org/rfc/rfc9113#section-6.8>.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use guestline_proto::{http2, secret::Secret};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::OnceCell;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{HeaderValue, Request, Response, Uri, header::USER_AGENT, uri::PathAndQuery},
    },
};

use crate::{
    ConnectError, Endpoint,
    connect::{Corked, Io, connect},
};

/// A VM that died without a word is noticed after the interval and the timeout together. One that is alive may be silent
/// for a while: with a slow disk behind a gibibyte of dirty pages, an emulated guest's kernel has been seen to let nobody run
/// for more than 10 s. 20 s are what gRPC's own libraries wait (gRPC, "Keepalive", `GRPC_ARG_KEEPALIVE_TIMEOUT_MS`).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections that one call tries. Each but the last was closed or told to go before the call was sent; an agent that does
/// so to every connection is not there for us.
const MAX_CONNECTIONS: usize = 3;

type Sender = SendRequest<Body>;
/// A connection that is being opened, or was.
type Connection = Shared<BoxFuture<'static, Result<Opened, ConnectError>>>;

/// A connection that came about.
#[derive(Clone, Debug)]
struct Opened {
    sender: Sender,
    /// Whom the agent made of it.
    uid: u32,
    capabilities: Capabilities,
}

/// What the agent said that it and its guest have, once somebody asked for it on that connection: the next one may be another
/// agent's.
pub(crate) type Capabilities = Arc<OnceCell<Vec<String>>>;

/// The connection, as the generated clients want it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    current: Mutex<Option<Connection>>,
    /// Of the last connection that a call used.
    uid: Mutex<Option<u32>>,
}

/// All that a connection depends on.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: String,
    pub(crate) secret: Option<Secret>,
    /// For all of connecting, hello included.
    pub(crate) connect_timeout: Duration,
}

impl Target {
    async fn connect(&self) -> Result<(impl Io + use<>, u32), ConnectError> {
        let secret = self.secret.as_ref();
        let (stream, uid) =
            connect(&self.endpoint, &self.user, secret, self.connect_timeout).await?;
        Ok((Corked::new(stream), uid))
    }
}

impl Channel {
    /// Does not connect.
    pub(crate) fn new(target: Target) -> Self {
        let (current, uid) = (Mutex::new(None), Mutex::new(None));
        Self {
            inner: Arc::new(Inner {
                target,
                current,
                uid,
            }),
        }
    }

    /// What it connects to.
    pub(crate) fn target(&self) -> &Target {
        &self.inner.target
    }

    /// Whom the agent made of the last connection that a call used.
    pub(crate) fn uid(&self) -> Option<u32> {
        *self
            .inner
            .uid
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the connection that the next call goes over. Connects where there is none.
    pub(crate) async fn capabilities(&self) -> Result<Capabilities, ConnectError> {
        Ok(self.opened().await?.capabilities)
    }

    async fn opened(&self) -> Result<Opened, ConnectError> {
        let mut connection = self.inner.connection();
        // One that was lost is not found out before somebody uses it.
        if let Some(Ok(opened)) = connection.peek()
            && opened.sender.is_closed()
        {
            self.inner.forget(&connection);
            connection = self.inner.connection();
        }
        let opened = connection.clone().await;
        opened.inspect_err(|_| self.inner.forget(&connection))
    }

    async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<dyn StdError + Send + Sync>> {
        complete(&mut request);
        let mut tries = 1;
        loop {
            let connection = self.inner.connection();
            let opened = connection.clone().await;
            let mut opened = opened.inspect_err(|_| self.inner.forget(&connection))?;
            self.inner.note_uid(opened.uid);
            let mut failure = match opened.sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            self.inner.forget(&connection);
            match failure.take_message() {
                Some(unsent) if tries < MAX_CONNECTIONS => request = unsent,
                _ => return Err(failure.into_error().into()),
            }
            tries += 1;
        }
    }
}

impl Inner {
    fn connection(&self) -> Connection {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.get_or_insert_with(|| self.open()).clone()
    }

    /// The next call opens another, unless one has done so already.
    fn forget(&self, gone: &Connection) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|now| now.ptr_eq(gone)) {
            *current = None;
        }
    }

    fn note_uid(&self, uid: u32) {
        *self.uid.lock().unwrap_or_else(PoisonError::into_inner) = Some(uid);
    }

    fn open(&self) -> Connection {
        let target = self.target.clone();
        let opening = async move {
            let (stream, uid) = target.connect().await?;
            let handshake = Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(http2::STREAM_WINDOW)
                .initial_connection_window_size(http2::CONNECTION_WINDOW)
                .max_frame_size(http2::MAX_FRAME_SIZE)
                .keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream));
            let (sender, connection) = handshake
                .await
                .map_err(|error| ConnectError::Http2(Arc::new(error)))?;
            // Ends with its last call once nobody holds the sender. Why it ended is told to the calls that were under way.
            tokio::spawn(async { drop(connection.await) });
            Ok(Opened {
                sender,
                uid,
                capabilities: Capabilities::default(),
            })
        };
        // A task of its own, so that it goes on if those who wait for it go away. Its time is limited.
        let opening = tokio::spawn(opening);
        let opened = async {
            opening
                .await
                .unwrap_or_else(|error| Err(ConnectError::stopped(error)))
        };
        opened.boxed().shared()
    }
}

/// Generated clients give the path alone; HTTP/2 wants the rest. The name says nothing: the hello has named the user.
fn complete(request: &mut Request<Body>) {
    let path = request.uri().path_and_query().cloned();
    let uri = Uri::builder()
        .scheme("http")
        .authority("guestline")
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = uri.build().expect("its parts were parsed before");
    let agent = concat!("guestline-client/", env!("CARGO_PKG_VERSION"));
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(agent));
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // What a call waits for, it waits for after it was made: the agent takes as many streams as it said.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        async move { channel.send(request).await }.boxed()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

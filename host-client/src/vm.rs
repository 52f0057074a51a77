//! The handle to one Linux user of one VM, and the connection behind it.

use std::{
    ffi::OsStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use guestline_proto::http2;
use hyper_util::rt::TokioIo;
use tonic::{
    Status,
    transport::{self, Channel},
};

use crate::{Command, Endpoint, Error, Files, System, connect::connect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A VM that died without a word is noticed after the interval and the timeout together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A VM as one of its Linux users. Cheap to clone; clones share one connection.
///
/// Making one does no I/O and checks nothing: a missing machine or an unknown user is an error of the first operation.
#[derive(Clone, Debug)]
pub struct Vm {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    user: String,
    connect_timeout: Duration,
    channel: OnceLock<Channel>,
}

impl Vm {
    /// The VM behind `endpoint`, as root.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::with(endpoint, "root".into(), CONNECT_TIMEOUT)
    }

    /// The same VM as another Linux user, over a connection of its own.
    pub fn user(&self, name: impl Into<String>) -> Self {
        Self::with(
            self.inner.endpoint.clone(),
            name.into(),
            self.inner.connect_timeout,
        )
    }

    /// The same VM and user, with another bound on the time that connecting takes, hello included. 5 s otherwise.
    pub fn connect_timeout(&self, limit: Duration) -> Self {
        Self::with(self.inner.endpoint.clone(), self.inner.user.clone(), limit)
    }

    /// Who operations act as.
    pub fn username(&self) -> &str {
        &self.inner.user
    }

    /// Where the agent is looked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The guest's files.
    pub fn files(&self) -> Files {
        Files::new(self.clone())
    }

    /// A program to run, found in the PATH of the child's environment; see [`Command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::program(self.clone(), program.as_ref())
    }

    /// One line for the user's login shell.
    pub fn shell(&self, line: impl AsRef<OsStr>) -> Command {
        Command::shell_line(self.clone(), line.as_ref())
    }

    /// The user's login shell itself; wants a [`Command::terminal`] mostly.
    pub fn login_shell(&self) -> Command {
        Command::login_shell(self.clone())
    }

    /// The guest itself, its users and groups.
    pub fn system(&self) -> System {
        System::new(self.clone())
    }

    fn with(endpoint: Endpoint, user: String, connect_timeout: Duration) -> Self {
        let channel = OnceLock::new();
        Self {
            inner: Arc::new(Inner {
                endpoint,
                user,
                connect_timeout,
                channel,
            }),
        }
    }

    /// The connection, which connects when it is used. Must be called within a Tokio runtime.
    pub(crate) fn channel(&self) -> Channel {
        self.inner
            .channel
            .get_or_init(|| self.inner.open_channel())
            .clone()
    }

    pub(crate) fn error(&self, status: Status) -> Error {
        Error::from_status(status, &self.inner.endpoint, &self.inner.user)
    }
}

impl Inner {
    fn open_channel(&self) -> Channel {
        let (endpoint, user) = (self.endpoint.clone(), self.user.clone());
        let limit = self.connect_timeout;
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let (endpoint, user) = (endpoint.clone(), user.clone());
            async move { connect(&endpoint, &user, limit).await.map(TokioIo::new) }
        });
        // The name is only the `:authority` of the requests.
        transport::Endpoint::from_static("http://guestline")
            .initial_stream_window_size(http2::STREAM_WINDOW)
            .initial_connection_window_size(http2::CONNECTION_WINDOW)
            .max_frame_size(http2::MAX_FRAME_SIZE)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectError, RefusalReason};
    use tokio::{io::AsyncWriteExt, net::UnixListener};

    #[tokio::test]
    async fn a_missing_socket_is_a_typed_error_of_every_operation() {
        let vm = Vm::new("unix:/nonexistent/agent.sock".parse().unwrap());
        for _ in 0..2 {
            let error = vm.files().stat("/").await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Connect {
                        source: ConnectError::NoSuchSocket(_),
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_is_the_first_operations_error_and_the_next_one_tries_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            for reason in ["user-not-found", "busy"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let line = format!("error {reason} no user \"alice\"\n");
                stream.write_all(line.as_bytes()).await.unwrap();
            }
        });
        let alice = Vm::new(Endpoint::Unix { path }).user("alice");
        for expected in [RefusalReason::UserNotFound, RefusalReason::Busy] {
            match alice.command("true").output().await.unwrap_err() {
                Error::Refused { user, reason, .. } => {
                    assert_eq!((user.as_str(), reason), ("alice", Some(expected)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_write_that_failed_fails_again_and_does_not_panic() {
        let vm = Vm::new("unix:/nonexistent/agent.sock".parse().unwrap());
        let mut writer = vm
            .files()
            .write_with("x", crate::WriteOptions::replace())
            .await
            .unwrap();
        // The queue takes some before the call's end is known.
        while writer.write("data").await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(writer.write("more").await.is_err());
        assert!(writer.finish().await.is_err());
    }
}

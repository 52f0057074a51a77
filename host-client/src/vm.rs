//! The handle to one Linux user of one VM, and the connection behind it.

use std::{ffi::OsStr, time::Duration};

use guestline_proto::secret::Secret;
use tonic::Status;

use crate::{
    Command, Endpoint, Error, Files, Network, Processes, System,
    channel::{Channel, Target},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A VM as one of its Linux users. Cheap to clone; clones share one connection.
///
/// Making one does no I/O and checks nothing: a missing machine or an unknown user is an error of the first operation.
#[derive(Clone, Debug)]
pub struct Vm {
    channel: Channel,
}

impl Vm {
    /// The VM behind `endpoint`, as root.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::with(Target {
            endpoint,
            user: "root".into(),
            secret: None,
            connect_timeout: CONNECT_TIMEOUT,
        })
    }

    /// The same VM as another Linux user, over a connection of its own.
    pub fn user(&self, name: impl Into<String>) -> Self {
        let user = name.into();
        let target = self.channel.target().clone();
        Self::with(Target { user, ..target })
    }

    /// The same VM and user, known by its secret: a connection comes about only if this host and the agent prove to each
    /// other that they have it.
    pub fn secret(&self, secret: Secret) -> Self {
        let secret = Some(secret);
        let target = self.channel.target().clone();
        Self::with(Target { secret, ..target })
    }

    /// The same VM and user, with another bound on the time that connecting takes, hello included. 5 s otherwise.
    pub fn connect_timeout(&self, limit: Duration) -> Self {
        let connect_timeout = limit;
        let target = self.channel.target().clone();
        Self::with(Target {
            connect_timeout,
            ..target
        })
    }

    /// Who operations act as.
    pub fn username(&self) -> &str {
        &self.channel.target().user
    }

    /// The user's uid in the guest, as the agent said it when the last connection was made that an operation used. Asks
    /// nothing: absent before the first operation, and where none got through.
    pub fn uid(&self) -> Option<u32> {
        self.channel.uid()
    }

    /// Where the agent is looked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.channel.target().endpoint
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

    /// The programs that this user's worker runs: list, attach, signal.
    pub fn processes(&self) -> Processes {
        Processes::new(self.clone())
    }

    /// The guest itself, its users and groups.
    pub fn system(&self) -> System {
        System::new(self.clone())
    }

    /// What listens in the guest.
    pub fn network(&self) -> Network {
        Network::new(self.clone())
    }

    fn with(target: Target) -> Self {
        Self {
            channel: Channel::new(target),
        }
    }

    /// The connection, which connects when it is used. Must be used within a Tokio runtime.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What the agent and its guest have, of that which `System.Info` names. Asked once a connection.
    pub(crate) async fn capabilities(&self) -> Result<Vec<String>, Error> {
        let known = self
            .channel
            .capabilities()
            .await
            .map_err(|error| Error::from_connecting(error, self.endpoint(), self.username()))?;
        let ask = || async { Ok::<_, Error>(self.system().info().await?.capabilities) };
        known.get_or_try_init(ask).await.cloned()
    }

    pub(crate) fn error(&self, status: Status) -> Error {
        Error::from_status(status, self.endpoint(), self.username())
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

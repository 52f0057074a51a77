//! Accepting connections, until the end.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russh::keys::PrivateKey;
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Parts, SshConfig, connection,
    limits::{Limits, Refused},
    protocol,
};

/// After a failure to accept: mostly there are no descriptors left, and others may end meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// Somebody who is refused has this long to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Between two looks for sources that are not in use.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen for SSH on {address}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: SshConfig,
    protocol: Arc<russh::server::Config>,
    parts: Parts,
    limits: Limits,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) async fn bind(
        config: SshConfig,
        parts: Parts,
        host_key: PrivateKey,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError {
            address: config.address,
            source,
        };
        let listener = TcpListener::bind(config.address).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            config,
            protocol: Arc::new(protocol::config(host_key)),
            parts,
            limits: Limits::new(config.limits),
            tasks: TaskTracker::new(),
        })
    }

    /// Where it listens: the system may have chosen the port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until `stop`, and then until the last connection has ended or had its time.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(FORGET_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.limits.forget_unused(Instant::now()),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer, &stop),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an SSH connection");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
        drop(self.listener);
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
        let place = match self.limits.admit(peer.ip(), Instant::now()) {
            Ok(place) => place,
            Err(refused) => {
                self.parts.metrics.refused(refused.code());
                self.tasks.spawn(refuse(stream, refused));
                return;
            }
        };
        self.tasks.spawn(connection::serve(
            self.parts.clone(),
            self.protocol.clone(),
            self.config.patience,
            stream,
            peer,
            place,
            stop.clone(),
        ));
    }
}

/// A line before the version is for people to read (RFC 4253, 4.2).
async fn refuse(mut stream: TcpStream, refused: Refused) {
    let line = format!("guestline: {refused}\r\n");
    let _ = timeout(FAREWELL, stream.write_all(line.as_bytes())).await;
}

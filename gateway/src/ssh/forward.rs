//! A channel to what listens in the guest: `ssh -L`, `-W` and `-J`. Connected there by the user's own worker, so that the
//! guest's kernel decides.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use guestline_client::{Error as GuestError, ForwardStream, ForwardTarget};
use russh::{ChannelOpenFailure, server::ChannelOpenHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::{
    access::{Access, Permitted, Reached},
    client::{Client, Gone},
    failure::Failure,
    inbox::{Inbox, Request},
};
use crate::{audit::Operation, sessions::Verb};

/// Read at once: a few packets of SSH's.
const READ_SIZE: usize = 128 * 1024;

/// What a client asks for. `None`: names are the client's to look up, and a port is not 0.
pub(super) fn tcp(host: &str, port: u32) -> Option<ForwardTarget> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" | "" | "*" => None,
        host => Some(host.parse::<IpAddr>().ok()?),
    };
    Some(ForwardTarget::Tcp { address, port })
}

pub(super) fn unix(path: &str) -> ForwardTarget {
    ForwardTarget::Unix(PathBuf::from(path))
}

/// Opens the channel once the guest is connected, and serves it to its end.
pub(super) async fn serve(
    target: ForwardTarget,
    mut inbox: Inbox,
    client: Client,
    reply: ChannelOpenHandle,
    access: Arc<Access>,
) {
    let mut permitted = match access.begin(Verb::Forward, Some(target.to_string())).await {
        Ok(permitted) => permitted,
        Err(_) => {
            let reason = ChannelOpenFailure::AdministrativelyProhibited;
            return reply.reject(reason).await;
        }
    };
    let (stream, _reached) = match connect(target, &permitted, &access).await {
        Ok(connected) => connected,
        Err(failure) => {
            permitted.set_result(failure.code);
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    let carried = match client.opened().await {
        Ok(()) => carry(stream, &mut inbox, &client, &permitted.operation).await,
        Err(Gone) => Err(None),
    };
    match carried {
        Ok(()) => permitted.set_result("ok"),
        Err(Some(failure)) => permitted.set_result(failure.code),
        Err(None) => {}
    }
    client.close().await;
}

async fn connect(
    target: ForwardTarget,
    permitted: &Permitted,
    access: &Access,
) -> Result<(ForwardStream, Reached), Failure> {
    let reached = access.reach(permitted).await?;
    let stream = reached.guest.network().forward(target).await?;
    Ok((stream, reached))
}

/// `None`: the client is gone.
type Broken = Option<Failure>;

/// Both ways, until both sides have said that they end. The channel is ours to close then: `ssh -W` waits for it.
async fn carry(
    stream: ForwardStream,
    inbox: &mut Inbox,
    client: &Client,
    operation: &Operation,
) -> Result<(), Broken> {
    let (read, write) = tokio::io::split(stream);
    let (closed, delivered) = (inbox.closed(), CancellationToken::new());
    let both = async {
        tokio::try_join!(from_guest(read, client, operation), async {
            to_guest(inbox, write, operation).await?;
            delivered.cancel();
            Ok(())
        })
    };
    let left = async {
        delivered.cancelled().await;
        closed.cancelled().await;
    };
    tokio::select! {
        carried = both => carried.map(drop),
        () = left => Err(None),
    }
}

async fn from_guest(
    mut stream: ReadHalf<ForwardStream>,
    client: &Client,
    operation: &Operation,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        let read = stream.read_buf(&mut buffer).await.map_err(broken)?;
        if read == 0 {
            return client.eof().await.map_err(|Gone| None);
        }
        operation.add_bytes_out(read);
        let data: Bytes = buffer.split().freeze();
        client.stdout(data).await.map_err(|Gone| None)?;
    }
}

/// Until the client says that no more comes.
async fn to_guest(
    inbox: &mut Inbox,
    mut stream: WriteHalf<ForwardStream>,
    operation: &Operation,
) -> Result<(), Broken> {
    while let Some(request) = inbox.next().await {
        match request {
            Request::Data(data) => {
                operation.add_bytes_in(data.len());
                stream.write_all(&data).await.map_err(broken)?;
            }
            Request::Eof => return stream.shutdown().await.map_err(broken),
            _ => {}
        }
    }
    Err(None)
}

/// The guest's error is inside of the stream's.
fn broken(error: std::io::Error) -> Broken {
    let inner = error
        .into_inner()
        .and_then(|it| it.downcast::<GuestError>().ok());
    Some(inner.map_or_else(
        || Failure::new("VM_LOST", "the stream to the VM broke"),
        |error| (*error).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_the_guests_own_loopback_are_reached_and_names_are_not() {
        let loopback = |port| ForwardTarget::Tcp {
            address: None,
            port,
        };
        assert_eq!(tcp("localhost", 80), Some(loopback(80)));
        let four = ForwardTarget::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(tcp("127.0.0.1", 80), Some(four));
        assert!(tcp("[::1]", 80).is_some() && tcp("::1", 80).is_some());
        for (host, port) in [("example.org", 80), ("localhost", 0), ("localhost", 65536)] {
            assert_eq!(tcp(host, port), None, "{host}:{port}");
        }
    }
}

//! For fuzz/: what a client makes of a stranger's lines.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use guestline_proto::{hello::Username, secret::Secret};
use tokio::io::AsyncReadExt;

use crate::connect::handshake::{connect_through, greet};

/// What became of the same bytes as each kind of answer.
#[derive(Debug)]
pub struct Heard {
    /// Taken as a VMM's OK.
    pub connected: Option<usize>,
    /// Taken as an agent's ok.
    pub greeted: Option<usize>,
    /// Whether they prove a secret.
    pub proven: bool,
}

/// The bytes are all that the peer ever says.
pub fn hear(bytes: &[u8]) -> Heard {
    let secret: Secret = "0123456789abcdef0123456789abcdef"
        .parse()
        .expect("a secret");
    let mut stream = peer(bytes);
    let connected = now(connect_through(&mut stream, 777)).is_ok();
    let connected = connected.then(|| bytes.len() - rest(stream));
    let mut stream = peer(bytes);
    let greeted = now(greet(&mut stream, Username::root(), None)).is_ok();
    let greeted = greeted.then(|| bytes.len() - rest(stream));
    let mut stream = peer(bytes);
    let proven = now(greet(&mut stream, Username::root(), Some(&secret))).is_ok();
    Heard {
        connected,
        greeted,
        proven,
    }
}

type Peer = tokio::io::Join<std::io::Cursor<Vec<u8>>, tokio::io::Sink>;

fn peer(bytes: &[u8]) -> Peer {
    tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink())
}

fn rest(mut stream: Peer) -> usize {
    let mut rest = Vec::new();
    now(stream.read_to_end(&mut rest)).expect("memory")
}

/// Nothing here ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for more than there is"),
    }
}

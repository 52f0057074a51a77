//! The first bytes of a connection: a hello line, or the preface of a plain gRPC client; and the line that proves a hello.
//!
//! They are looked at with MSG_PEEK, and only the line itself is taken from the socket: what follows belongs to the worker.

use std::os::fd::{AsRawFd, OwnedFd};

use guestline_proto::hello::{Hello, HelloError, MAX_LINE, RefusalReason, Reply};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use crate::switches;

/// How HTTP/2 begins (RFC 9113, 3.4), as far as it takes to know it from a hello.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What a connection wants to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A plain gRPC client. Nothing was taken from the socket.
    Plain,
    /// A hello, which was taken from the socket.
    Hello {
        hello: Hello,
        /// As it came, without its `\n`.
        line: Vec<u8>,
    },
}

/// Why the first bytes are no opening.
#[derive(Debug, Error)]
pub(super) enum OpeningError {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the hello has no end within {MAX_LINE} bytes")]
    TooLong,
    #[error("the connection was closed before its hello")]
    Closed,
    #[error("the connection failed before its hello")]
    Socket(#[source] Errno),
}

/// Reads the opening. Takes as long as the peer does: the caller sets the time limit.
pub(super) async fn read_opening(socket: &AsyncFd<OwnedFd>) -> Result<Opening, OpeningError> {
    match look(socket, recognise).await? {
        Start::Preface => Ok(Opening::Plain),
        Start::Line(length) => {
            let line = take_line(socket, length)?;
            let hello = Hello::parse(&line)?;
            Ok(Opening::Hello { hello, line })
        }
    }
}

/// Reads one more line, without its `\n`. The caller sets the time limit here too.
pub(super) async fn read_line(socket: &AsyncFd<OwnedFd>) -> Result<Vec<u8>, OpeningError> {
    let length = look(socket, find_line).await?;
    take_line(socket, length)
}

/// Looks at what is in the socket until it is enough to `recognise` something.
async fn look<T>(
    socket: &AsyncFd<OwnedFd>,
    recognise: impl Fn(&[u8]) -> Result<Option<T>, OpeningError>,
) -> Result<T, OpeningError> {
    let mut seen = 0;
    loop {
        let mut ready = socket.readable().await.map_err(|_| OpeningError::Closed)?;
        let mut bytes = [0; MAX_LINE];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(socket.as_raw_fd(), &mut bytes, flags) {
            Ok(0) => return Err(OpeningError::Closed),
            Ok(length) => match recognise(&bytes[..length])? {
                Some(found) => return Ok(found),
                None if length == seen && ready.ready().is_read_closed() => {
                    return Err(OpeningError::Closed);
                }
                // Wait for more: epoll is edge-triggered here, so new bytes wake us though the old are still there.
                None => {
                    seen = length;
                    ready.clear_ready();
                }
            },
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(OpeningError::Socket(errno)),
        }
    }
}

/// Sends one line; a fresh socket always has room for it. A peer that is gone needs no answer.
pub(super) fn send_line(socket: &OwnedFd, line: &str) {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let _ = send(socket.as_raw_fd(), line.as_bytes(), flags);
}

/// Answers that the connection is turned away, and why.
pub(super) fn refuse(socket: &OwnedFd, reason: RefusalReason, text: String) {
    let reason = Some(reason);
    send_line(socket, &Reply::Refused { reason, text }.to_line());
}

#[derive(Debug, PartialEq, Eq)]
enum Start {
    Preface,
    /// Its length, with the `\n`.
    Line(usize),
}

/// What these first bytes are; `None`: too few to say.
fn recognise(bytes: &[u8]) -> Result<Option<Start>, OpeningError> {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return Ok((common == PREFACE.len()).then_some(Start::Preface));
    }
    Ok(find_line(bytes)?.map(Start::Line))
}

/// The length of the first line, with its `\n`; `None`: it goes on.
fn find_line(bytes: &[u8]) -> Result<Option<usize>, OpeningError> {
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => Ok(Some(end + 1)),
        None if bytes.len() >= MAX_LINE && !switches::is_off("hello bound") => {
            Err(OpeningError::TooLong)
        }
        None => Ok(None),
    }
}

fn take_line(socket: &AsyncFd<OwnedFd>, length: usize) -> Result<Vec<u8>, OpeningError> {
    let mut line = vec![0; length];
    let taken = recv(socket.as_raw_fd(), &mut line, MsgFlags::MSG_DONTWAIT)
        .map_err(OpeningError::Socket)?;
    // The bytes were there to be seen, and nobody else reads this socket.
    debug_assert_eq!(taken, length);
    line.truncate(taken);
    line.pop_if(|last| *last == b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::readiness::watch;
    use nix::{
        sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
        unistd::write,
    };

    fn pair() -> (AsyncFd<OwnedFd>, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, peers) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        (watch(ours, tokio::io::Interest::READABLE).unwrap(), peers)
    }

    fn rest(socket: &AsyncFd<OwnedFd>) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    #[tokio::test]
    async fn bytes_glued_behind_the_line_stay_in_the_socket() {
        let (ours, peers) = pair();
        write(&peers, b"guestline/1 user=alice\nPRI * HTTP/2.0").unwrap();
        let Opening::Hello { hello, line } = read_opening(&ours).await.unwrap() else {
            panic!("not a hello")
        };
        assert_eq!(hello.user.as_str(), "alice");
        assert_eq!(line, b"guestline/1 user=alice");
        assert_eq!(rest(&ours), b"PRI * HTTP/2.0");
    }

    #[tokio::test]
    async fn lines_are_taken_one_by_one() {
        let (ours, peers) = pair();
        write(&peers, b"guestline/1 user=alice\nanswer proof=00\n").unwrap();
        read_opening(&ours).await.unwrap();
        assert_eq!(read_line(&ours).await.unwrap(), b"answer proof=00");
        write(&peers, b"PRI * HTTP/2.0\nrest").unwrap();
        // No opening any more: a line like others.
        assert_eq!(read_line(&ours).await.unwrap(), b"PRI * HTTP/2.0");
        assert_eq!(rest(&ours), b"rest");
        write(&peers, &[b'x'; 2000]).unwrap();
        assert!(matches!(read_line(&ours).await, Err(OpeningError::TooLong)));
    }

    #[tokio::test]
    async fn a_preface_is_seen_and_left_whole_even_byte_by_byte() {
        let (ours, peers) = pair();
        let sending = async {
            for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
                write(&peers, &[*byte]).unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (opening, ()) = tokio::join!(read_opening(&ours), sending);
        assert_eq!(opening.unwrap(), Opening::Plain);
        assert_eq!(rest(&ours), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_at_its_bound() {
        let (ours, peers) = pair();
        write(&peers, &[b'x'; 100_000]).unwrap();
        assert!(matches!(
            read_opening(&ours).await,
            Err(OpeningError::TooLong)
        ));
    }

    #[tokio::test]
    async fn half_a_line_and_an_end_is_closed_not_a_spin() {
        let (ours, peers) = pair();
        write(&peers, b"guestline/1 us").unwrap();
        drop(peers);
        assert!(matches!(
            read_opening(&ours).await,
            Err(OpeningError::Closed)
        ));
    }
}

//! The listener's end of a control socket: what one worker reports, and the way to it. A user who has the worker in hand can
//! send anything: see [`WarySocket`].

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    control::{ControlError, Order, Report, decode, send},
    sys::errno_of,
    wary::{WarySocket, refuse_descriptors},
};

/// The listener's end.
#[derive(Debug)]
pub(super) struct WorkerSocket(WarySocket);

impl WorkerSocket {
    /// Takes an end into which nothing was sent yet. Must be called within a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, ControlError> {
        let is_clean = refuse_descriptors(&socket);
        Self::with(socket, is_clean)
    }

    /// Takes an end into which the peer may have sent something already.
    pub(super) fn of_a_peer(socket: OwnedFd) -> Result<Self, ControlError> {
        Self::with(socket, false)
    }

    fn with(socket: OwnedFd, is_clean: bool) -> Result<Self, ControlError> {
        let socket = WarySocket::new(socket, Interest::READABLE, is_clean);
        socket
            .map(Self)
            .map_err(|error| ControlError::Socket(errno_of(&error)))
    }

    /// Never waits: a full queue is an error (EAGAIN), because a worker that does not read must not hold the listener up.
    pub(super) fn send(
        &self,
        order: &Order,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), ControlError> {
        send(self.0.get().as_raw_fd(), order, socket)
    }

    /// The next report, of at most so many bytes. Cancel-safe.
    pub(super) async fn receive(&self, limit: usize) -> Result<Report, ControlError> {
        match self.0.read(read, limit).await {
            Ok(bytes) => decode(&bytes),
            Err(error) => Err(ControlError::Socket(errno_of(&error))),
        }
    }

    /// A report that is there already. Cancel-safe.
    pub(super) async fn take(&self, limit: usize) -> Result<Option<Report>, ControlError> {
        match self.0.read_now(read, limit).await {
            Ok(bytes) => decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(ControlError::Socket(errno_of(&error))),
        }
    }
}

fn read(socket: &AsyncFd<OwnedFd>, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; limit];
    let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        libc,
        sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::Linger},
    };
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        sync::Arc,
        time::{Duration, Instant},
    };

    const LINGER: Duration = Duration::from_secs(6);

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    fn report(
        worker: &OwnedFd,
        served: u64,
        with: Option<BorrowedFd<'_>>,
    ) -> Result<(), ControlError> {
        send(worker.as_raw_fd(), &Report::Idle { served }, with)
    }

    /// A socket whose last close takes [`LINGER`], and the peer that does not read.
    fn slow_to_close() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        slow.set_nonblocking(true).unwrap();
        while slow.write(&[0; 65536]).is_ok() {}
        slow.set_nonblocking(false).unwrap();
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: LINGER.as_secs() as i32,
        };
        setsockopt(&slow, Linger, &linger).unwrap();
        (slow, peer)
    }

    #[tokio::test]
    async fn junk_and_an_end_are_errors_not_panics() {
        for socket in [WorkerSocket::new, WorkerSocket::of_a_peer] {
            let (ours, worker) = pair();
            let ours = socket(ours).unwrap();
            nix::unistd::write(&worker, &[0xff; 100]).unwrap();
            let junk = ours.receive(64).await;
            assert!(matches!(junk, Err(ControlError::Malformed)), "{junk:?}");
            assert!(matches!(ours.take(64).await, Ok(None)));
            drop(worker);
            let end = ours.receive(64).await;
            assert!(matches!(end, Err(ControlError::Closed)), "{end:?}");
        }
    }

    #[tokio::test]
    async fn a_descriptor_that_is_slow_to_close_holds_nobody_but_its_worker() {
        let (ours, worker) = pair();
        let ours = Arc::new(WorkerSocket::of_a_peer(ours).unwrap());
        let (slow, _peer) = slow_to_close();
        report(&worker, 1, Some(slow.as_fd())).unwrap();
        drop(slow);
        report(&worker, 2, None).unwrap();
        let begun = Instant::now();
        // Given up again and again, and nothing of it is lost.
        let mut given_up = 0;
        let first = loop {
            match tokio::time::timeout(LINGER / 20, ours.receive(64)).await {
                Ok(report) => break report.unwrap(),
                Err(_) => given_up += 1,
            }
        };
        assert!(matches!(first, Report::Idle { served: 1 }));
        // This thread went on meanwhile, and the close was as slow as it should be, or nothing is shown.
        assert!(given_up >= 5, "{given_up} times in {:?}", begun.elapsed());
        assert!(matches!(
            ours.receive(64).await.unwrap(),
            Report::Idle { served: 2 }
        ));
    }

    #[tokio::test]
    async fn closing_with_such_a_report_unread_does_not_wait_either() {
        let (ours, worker) = pair();
        let ours = WorkerSocket::of_a_peer(ours).unwrap();
        let (slow, peer) = slow_to_close();
        report(&worker, 1, Some(slow.as_fd())).unwrap();
        drop(slow);
        let begun = Instant::now();
        drop(ours);
        assert!(begun.elapsed() < LINGER / 3);
        // The close has an end where there is nobody to wait for, and so has this test's runtime.
        drop(peer);
    }

    #[tokio::test]
    async fn a_kernel_that_can_refuses_descriptors() {
        let (ours, worker) = pair();
        let ours = WorkerSocket::new(ours).unwrap();
        let (passed, other) = pair();
        let sent = report(&worker, 7, Some(passed.as_fd()));
        drop(passed);
        match refuse_descriptors(&pair().0) {
            true => assert!(matches!(sent, Err(ControlError::Socket(Errno::EPERM)))),
            // Discarded on the way: its peer is at its end.
            false => {
                sent.unwrap();
                let report = ours.receive(64).await.unwrap();
                assert!(matches!(report, Report::Idle { served: 7 }));
            }
        }
        assert_eq!(nix::unistd::read(&other, &mut [0; 8]), Ok(0));
    }
}

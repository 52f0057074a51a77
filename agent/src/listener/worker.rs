//! One worker as its listener has it: the way to it, and the sockets that wait for it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use guestline_proto::hello::RefusalReason;
use nix::errno::Errno;

use super::{greeting::Greeting, hearing::deliver, worker_socket::WorkerSocket};
use crate::{
    control::{ControlError, Order},
    switches,
    system::accounts::Account,
};

/// Sockets that wait for one worker to start.
const MAX_WAITING: usize = 128;

/// A socket for a user.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) account: Account,
    pub(super) socket: OwnedFd,
    pub(super) greeting: Greeting,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) account: Account,
    pub(super) pid: i32,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) control: Arc<WorkerSocket>,
    /// Sockets for it until it is ready; `None` from then on.
    pub(super) waiting: Option<Vec<Placement>>,
    /// Sockets that were handed over.
    pub(super) handed: u64,
    /// It was told to end, and need not be told again, however often it says that it is idle.
    pub(super) is_retired: bool,
}

impl Worker {
    /// Waits for nobody: a worker that does not read just now gets it a little later.
    pub(super) fn order(&self, order: Order) {
        if let Err(ControlError::Socket(Errno::EAGAIN)) = self.control.send(&order, None) {
            let control = Arc::clone(&self.control);
            tokio::spawn(async move { deliver(&control, &order, None).await });
        }
    }

    /// Gives it a connection, and answers the hello before.
    pub(super) fn hand_over(&mut self, placement: Placement) {
        let uid = self.account.uid;
        placement.greeting.accept(&placement.socket, uid);
        switches::point("worker: greeted");
        match self
            .control
            .send(&Order::Serve, Some(placement.socket.as_fd()))
        {
            Ok(()) => {
                switches::point("worker: handed");
                self.handed += 1;
            }
            // The peer sees its connection closed and tries again, with the next worker if this one is gone.
            Err(error) => {
                tracing::warn!(user = self.account.name, %error, "could not hand a connection over")
            }
        }
    }
}

/// Lets a socket wait for a worker.
pub(super) fn queue(waiting: &mut Vec<Placement>, placement: Placement) {
    if waiting.len() < MAX_WAITING {
        return waiting.push(placement);
    }
    let text = "too many connections wait for this user's worker";
    refuse(placement, RefusalReason::Busy, text);
}

/// Turns a socket away whose hello was right.
pub(super) fn refuse(placement: Placement, reason: RefusalReason, text: &str) {
    let Placement {
        greeting, socket, ..
    } = placement;
    greeting.refuse(&socket, reason, text.into());
}

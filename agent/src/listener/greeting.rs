//! What a connection may be told before it belongs to a worker, by how it began.

use std::os::fd::OwnedFd;

use guestline_proto::{
    hello::{RefusalReason, Reply},
    proof::Proven,
};

use super::opening;

/// How a connection began, and so how it is answered.
#[derive(Debug)]
pub(super) enum Greeting {
    /// With HTTP/2: such a client would not understand a line.
    Plain,
    /// With a hello, in a guest that has no secret.
    Hello,
    /// With a hello and a proof. It wants one, too.
    Proven(Proven),
}

impl Greeting {
    /// HTTP/2 may begin, as this user.
    pub(super) fn accept(&self, socket: &OwnedFd, uid: u32) {
        let version = env!("CARGO_PKG_VERSION").into();
        let reply = Reply::Ok { version, uid };
        match self {
            Self::Plain => {}
            Self::Hello => opening::send_line(socket, &reply.to_line()),
            Self::Proven(proven) => opening::send_line(socket, &proven.seal(&reply)),
        }
    }

    /// The connection is turned away.
    pub(super) fn refuse(&self, socket: &OwnedFd, reason: RefusalReason, text: String) {
        match self {
            Self::Plain => {}
            Self::Hello | Self::Proven(_) => opening::refuse(socket, reason, text),
        }
    }
}

//! SSH: `ssh VM+USER:TOKEN@gateway`, with no sshd and no key in the guest. The connection ends here; who may do what is
//! decided by the sessions, as for HTTP, and done through the agent as the Linux user.
//!
//! ```text
//! listen ─► connection ─► handler (russh's callbacks) ─► login ─► sessions: one decision
//!              │             └─► session ─► program | sftp ─┐
//!              │             └─► forward ───────────────────┴─► access ─► sessions, audit, machines
//!              └─ limits, grace time, lease, idle, drain: each ends it
//! ```
//!
//! russh is named in this folder, and for public keys in `sessions`.

mod access;
mod channels;
mod client;
mod connection;
mod destination;
mod failure;
mod forward;
mod handler;
mod host_key;
mod inbox;
mod limits;
mod listen;
mod login;
mod notices;
mod program;
mod protocol;
mod session;
mod sftp;
mod signals;
mod socket;

use std::{net::SocketAddr, time::Duration};

pub(crate) use host_key::{host_key, known_hosts_line};
pub(crate) use limits::LimitsConfig;
pub(crate) use listen::Server;

use crate::{
    audit::Audit,
    machines::Machines,
    metrics::Metrics,
    sessions::{LiveSessions, Sessions},
};

/// What SSH needs of the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) sessions: Sessions,
    pub(crate) live: LiveSessions,
    pub(crate) machines: Machines,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
}

/// Where to listen, and what clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SshConfig {
    pub(crate) address: SocketAddr,
    pub(crate) limits: LimitsConfig,
    pub(crate) patience: Patience,
}

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the first byte to a login.
    pub(crate) login: Duration,
    /// Without a channel.
    pub(crate) idle: Duration,
    /// To end what is under way when the gateway ends.
    pub(crate) drain: Duration,
}

//! What a guest and its agent are.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use guestline_proto::v1;

use super::text;

/// What a guest and its agent are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Of the agent.
    pub agent_version: String,
    /// The guest's host name.
    pub hostname: String,
    /// Of uname(2).
    pub kernel: String,
    /// Of uname(2).
    pub architecture: String,
    /// Its own name; empty where it has none.
    pub operating_system: String,
    /// New with each boot.
    pub boot_id: String,
    /// How often it was resumed since.
    pub generation: u64,
    /// Since boot.
    pub uptime: Duration,
    /// The guest's clock.
    pub now: Option<SystemTime>,
    /// Load over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Cores.
    pub cpus: u32,
    /// Its memory.
    pub memory: Memory,
    /// Its mounted disks.
    pub disks: Vec<Disk>,
    /// Who this connection is.
    pub identity: Identity,
    /// What the guest has: "cgroup2", "systemd", …
    pub capabilities: Vec<String>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// To be had without swapping.
    pub available: u64,
    /// Swap.
    pub swap_total: u64,
    /// Unused swap.
    pub swap_free: u64,
}

/// A mounted file system on a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// Where.
    pub mount_point: PathBuf,
    /// What.
    pub device: PathBuf,
    /// Of which kind.
    pub file_system: String,
    /// Bytes.
    pub total: u64,
    /// Bytes free to users.
    pub available: u64,
}

/// A Linux user as the kernel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The name.
    pub user: OsString,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

impl From<v1::InfoResponse> for Info {
    fn from(wire: v1::InfoResponse) -> Self {
        Self {
            agent_version: wire.agent_version,
            hostname: wire.hostname,
            kernel: wire.kernel,
            architecture: wire.architecture,
            operating_system: wire.operating_system,
            boot_id: wire.boot_id,
            generation: wire.generation,
            uptime: wire
                .uptime
                .and_then(|time| time.try_into().ok())
                .unwrap_or_default(),
            now: wire.now.and_then(|time| time.try_into().ok()),
            load: [wire.load_1, wire.load_5, wire.load_15],
            cpus: wire.cpus,
            memory: wire.memory.unwrap_or_default().into(),
            disks: wire.disks.into_iter().map(Disk::from).collect(),
            identity: wire.identity.unwrap_or_default().into(),
            capabilities: wire.capabilities,
        }
    }
}

impl From<v1::Disk> for Disk {
    fn from(wire: v1::Disk) -> Self {
        Self {
            mount_point: text(wire.mount_point).into(),
            device: text(wire.device).into(),
            file_system: wire.file_system,
            total: wire.total,
            available: wire.available,
        }
    }
}

impl From<v1::Identity> for Identity {
    fn from(wire: v1::Identity) -> Self {
        Self {
            user: text(wire.user),
            uid: wire.uid,
            gid: wire.gid,
            groups: wire.groups,
            home: text(wire.home).into(),
            shell: text(wire.shell).into(),
        }
    }
}

impl From<v1::Memory> for Memory {
    fn from(wire: v1::Memory) -> Self {
        Self {
            total: wire.total,
            free: wire.free,
            available: wire.available,
            swap_total: wire.swap_total,
            swap_free: wire.swap_free,
        }
    }
}

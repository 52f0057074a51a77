//! The guest itself: what it is, and who lives there.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{self, system_client::SystemClient},
};
use tonic::transport::Channel;

use crate::{Error, Vm};

/// The facts and users of a VM, as the user of the [`Vm`] it came from.
#[derive(Clone, Debug)]
pub struct System {
    vm: Vm,
}

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

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub name: OsString,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The comment field.
    pub comment: OsString,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The name.
    pub name: OsString,
    /// The group id.
    pub gid: u32,
    /// The members.
    pub members: Vec<OsString>,
}

/// A user to create; what is `None` the guest chooses.
#[derive(Clone, Debug, Default)]
pub struct CreateUser {
    /// `[a-z_][a-z0-9_-]*`, at most 32 bytes.
    pub name: String,
    /// The user id.
    pub uid: Option<u32>,
    /// Supplementary groups, which must be there.
    pub groups: Vec<String>,
    /// The home directory.
    pub home: Option<String>,
    /// The login shell.
    pub shell: Option<String>,
    /// A system user.
    pub system: bool,
    /// The comment field.
    pub comment: String,
}

/// A group to create.
#[derive(Clone, Debug, Default)]
pub struct CreateGroup {
    /// The name.
    pub name: String,
    /// The group id.
    pub gid: Option<u32>,
    /// A system group.
    pub system: bool,
}

impl System {
    pub(crate) fn new(vm: Vm) -> Self {
        Self { vm }
    }

    fn client(&self) -> SystemClient<Channel> {
        SystemClient::new(self.vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// What this guest and its agent are.
    pub async fn info(&self) -> Result<Info, Error> {
        let answer = self.client().info(v1::InfoRequest {}).await;
        Ok(answer
            .map_err(|status| self.vm.error(status))?
            .into_inner()
            .into())
    }

    /// The users of /etc/passwd.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        let answer = self.client().list_users(v1::ListUsersRequest {}).await;
        let mut pages = answer.map_err(|status| self.vm.error(status))?.into_inner();
        let mut users = Vec::new();
        while let Some(page) = pages
            .message()
            .await
            .map_err(|status| self.vm.error(status))?
        {
            users.extend(page.users.into_iter().map(User::from));
        }
        Ok(users)
    }

    /// The groups of /etc/group.
    pub async fn groups(&self) -> Result<Vec<Group>, Error> {
        let answer = self.client().list_groups(v1::ListGroupsRequest {}).await;
        let mut pages = answer.map_err(|status| self.vm.error(status))?.into_inner();
        let mut groups = Vec::new();
        while let Some(page) = pages
            .message()
            .await
            .map_err(|status| self.vm.error(status))?
        {
            groups.extend(page.groups.into_iter().map(Group::from));
        }
        Ok(groups)
    }

    /// Creates a user. Not repeated by itself: after [`Error::Lost`], look whether it is there.
    pub async fn create_user(&self, user: CreateUser) -> Result<User, Error> {
        let request = v1::CreateUserRequest {
            name: user.name,
            uid: user.uid,
            groups: user.groups,
            home: user.home,
            shell: user.shell,
            system: user.system,
            comment: user.comment,
        };
        let answer = self.client().create_user(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        let missing = || Error::Protocol("a created user without its line".into());
        answer.user.map(User::from).ok_or_else(missing)
    }

    /// Creates a group.
    pub async fn create_group(&self, group: CreateGroup) -> Result<Group, Error> {
        let CreateGroup { name, gid, system } = group;
        let answer = self
            .client()
            .create_group(v1::CreateGroupRequest { name, gid, system })
            .await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        let missing = || Error::Protocol("a created group without its line".into());
        answer.group.map(Group::from).ok_or_else(missing)
    }
}

fn text(bytes: bytes::Bytes) -> OsString {
    OsString::from_vec(bytes.into())
}

impl From<v1::InfoResponse> for Info {
    fn from(wire: v1::InfoResponse) -> Self {
        let memory = wire.memory.unwrap_or_default();
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
            memory: Memory {
                total: memory.total,
                free: memory.free,
                available: memory.available,
                swap_total: memory.swap_total,
                swap_free: memory.swap_free,
            },
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

impl From<v1::User> for User {
    fn from(wire: v1::User) -> Self {
        Self {
            name: text(wire.name),
            uid: wire.uid,
            gid: wire.gid,
            comment: text(wire.comment),
            home: text(wire.home).into(),
            shell: text(wire.shell).into(),
        }
    }
}

impl From<v1::Group> for Group {
    fn from(wire: v1::Group) -> Self {
        Self {
            name: text(wire.name),
            gid: wire.gid,
            members: wire.members.into_iter().map(text).collect(),
        }
    }
}

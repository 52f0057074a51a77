//! The guest itself: what it is, who lives there, and what changes it.

mod accounts;
mod clock;
mod info;
mod metrics;
mod services;

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{self, system_client::SystemClient},
};

pub use accounts::{CreateGroup, CreateUser, Group, User};
pub use clock::ClockStep;
pub use info::{Disk, Identity, Info, Memory};
pub use metrics::{AgentProcess, CpuTime, Metrics, MetricsStream, Pressure};
pub use services::{CreateService, LogLine, LogOptions, LogStream, Service, ServiceAction};

use crate::{Error, Vm, channel::Channel, pages::collect};

/// The facts and users of a VM, as the user of the [`Vm`] it came from. What changes the guest is tried as that user too, so
/// that for all but root the guest's kernel mostly says no: [`Error::is_permission_denied`].
#[derive(Clone, Debug)]
pub struct System {
    vm: Vm,
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

    /// The users of /etc/passwd: at most 131,072, and 32 MiB of them, [`Error::ListTooLong`] otherwise.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        let answer = self.client().list_users(v1::ListUsersRequest {}).await;
        let pages = answer.map_err(|status| self.vm.error(status))?.into_inner();
        collect(&self.vm, pages).await
    }

    /// The groups of /etc/group: at most 131,072 with their members, and 32 MiB of them, [`Error::ListTooLong`] otherwise.
    pub async fn groups(&self) -> Result<Vec<Group>, Error> {
        let answer = self.client().list_groups(v1::ListGroupsRequest {}).await;
        let pages = answer.map_err(|status| self.vm.error(status))?.into_inner();
        collect(&self.vm, pages).await
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

    /// Sets the guest's clock. Not repeated by itself: by then the time would be another.
    pub async fn set_time(&self, time: SystemTime) -> Result<ClockStep, Error> {
        let time = Some(time.into());
        let answer = self.client().set_time(v1::SetTimeRequest { time }).await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        Ok(answer.into_inner().step.into())
    }

    /// Tells a guest that it was paused, restored or cloned: its clock is set, its random pool gets 1 byte to 4 KiB of a
    /// good generator's, and all connections of before are told to go, which handles follow by themselves. Gives the
    /// guest's new generation number, and how far the clock was moved.
    pub async fn resumed(
        &self,
        time: SystemTime,
        entropy: impl Into<Bytes>,
    ) -> Result<(u64, ClockStep), Error> {
        let request = v1::ResumedRequest {
            time: Some(time.into()),
            entropy: entropy.into(),
        };
        let answer = self.client().resumed(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok((answer.generation, ClockStep::from(answer.step)))
    }

    /// Freezes the file systems on block devices for a snapshot, and gives their mount points. They thaw by themselves after
    /// `timeout` (30 s where it is `None`, at most 5 minutes), also when this host vanishes.
    pub async fn freeze(&self, timeout: Option<Duration>) -> Result<Vec<PathBuf>, Error> {
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        let answer = self.client().freeze(v1::FreezeRequest { timeout }).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok(paths(answer.mount_points))
    }

    /// Thaws all that is frozen, and gives the mount points. [`ErrorReason::NotFrozen`](crate::ErrorReason) where nothing was:
    /// after a freeze, its time was over and a snapshot may not be whole.
    pub async fn thaw(&self) -> Result<Vec<PathBuf>, Error> {
        let answer = self.client().thaw(v1::ThawRequest {}).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok(paths(answer.mount_points))
    }

    /// Powers the guest off. Returns before it goes.
    pub async fn power_off(&self) -> Result<(), Error> {
        self.shut_down(v1::ShutdownMode::PowerOff).await
    }

    /// Reboots the guest. Returns before it goes; its agent answers again afterwards, with another boot id.
    pub async fn reboot(&self) -> Result<(), Error> {
        self.shut_down(v1::ShutdownMode::Reboot).await
    }

    async fn shut_down(&self, mode: v1::ShutdownMode) -> Result<(), Error> {
        let mode = mode.into();
        let answer = self.client().shutdown(v1::ShutdownRequest { mode }).await;
        answer.map(drop).map_err(|status| self.vm.error(status))
    }

    /// Mixes 1 byte to 4 KiB of a good generator's into the guest's random pool, and makes its own generator draw from it.
    pub async fn reseed(&self, entropy: impl Into<Bytes>) -> Result<(), Error> {
        let entropy = entropy.into();
        let answer = self.client().reseed(v1::ReseedRequest { entropy }).await;
        answer.map(drop).map_err(|status| self.vm.error(status))
    }
}

fn paths(paths: Vec<Bytes>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| text(path).into()).collect()
}

fn text(bytes: Bytes) -> OsString {
    OsString::from_vec(bytes.into())
}

//! Who this process is to the kernel: changing it for good, and proving that it cannot be changed back.

use std::{collections::HashSet, ffi::CStr};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid},
};
use thiserror::Error;

use crate::switches;

/// The step of becoming a user that failed.
#[derive(Debug, Error)]
pub(crate) enum BecomeError {
    #[error("setgroups")]
    SetGroups(#[source] Errno),
    #[error("setresgid")]
    SetGid(#[source] Errno),
    #[error("setresuid")]
    SetUid(#[source] Errno),
    #[error("prctl(PR_SET_DUMPABLE)")]
    SetDumpable(#[source] Errno),
    #[error("reading back the identity")]
    ReadBack(#[source] Errno),
    #[error("verifying that the ids and groups are the user's")]
    WrongIdentity,
    #[error("verifying that there are no capabilities")]
    CapabilitiesKept,
    #[error("verifying that there is no way back to root")]
    WayBack,
}

impl BecomeError {
    /// 0 where a check failed rather than a call.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::SetGroups(errno)
            | Self::SetGid(errno)
            | Self::SetUid(errno)
            | Self::SetDumpable(errno)
            | Self::ReadBack(errno) => *errno as i32,
            Self::WrongIdentity | Self::CapabilitiesKept | Self::WayBack => 0,
        }
    }
}

/// Who a process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The supplementary ones.
    pub(crate) groups: Vec<u32>,
}

/// What somebody who has become a user may have, or not have, besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Besides {
    Nothing,
    /// What the guest's own policy gives at a login: other groups, which its directory and its PAM know, but not root's; and
    /// capabilities that its PAM handed on (pam_cap(8), pam_systemd(8)). Inheritable ones are no power by themselves, and
    /// ambient ones somebody raised by name: what root was and did not take off is neither.
    OfALogin,
}

/// Becomes the user irrevocably and verifies it. Must run while the process has one thread.
///
/// The process is then as dumpable as any of the user's own: without that, its /proc/self would be root's
/// (proc(5), "/proc/pid"), and the user would be refused what the kernel grants everywhere else. It was executed afresh, so
/// that its memory holds nothing but the account.
pub(crate) fn become_user(user: &Identity) -> Result<(), BecomeError> {
    umask(Mode::from_bits_truncate(0o022));
    // An agent without privileges, as in development, can only be who it already is.
    if Uid::effective().is_root() {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(BecomeError::SetGroups)?;
        setresgid(gid, gid, gid).map_err(BecomeError::SetGid)?;
        setresuid(uid, uid, uid).map_err(BecomeError::SetUid)?;
        prctl::set_dumpable(true).map_err(BecomeError::SetDumpable)?;
    }
    verify(user, Besides::Nothing)
}

/// Whether this process is the user, has no capability but those of `besides` and cannot become root again: whoever made it so.
pub(crate) fn verify(user: &Identity, besides: Besides) -> Result<(), BecomeError> {
    if switches::is_off("drop check") {
        return Ok(());
    }
    let users = getresuid().map_err(BecomeError::ReadBack)?;
    let grps = getresgid().map_err(BecomeError::ReadBack)?;
    let actual = getgroups().map_err(BecomeError::ReadBack)?;
    let actual: HashSet<u32> = actual.into_iter().map(Gid::as_raw).collect();
    let groups: HashSet<u32> = user.groups.iter().copied().collect();
    let groups_fit = match besides {
        Besides::Nothing => actual == groups,
        Besides::OfALogin => user.gid == 0 || groups.contains(&0) || !actual.contains(&0),
    };
    let ids = [users.real, users.effective, users.saved].map(Uid::as_raw);
    let gids = [grps.real, grps.effective, grps.saved].map(Gid::as_raw);
    if ids != [user.uid; 3] || gids != [user.gid; 3] || !groups_fit {
        return Err(BecomeError::WrongIdentity);
    }
    if user.uid == 0 {
        return Ok(());
    }
    let capabilities = Capabilities::of_this_process().map_err(BecomeError::ReadBack)?;
    if !capabilities.fit(besides) {
        return Err(BecomeError::CapabilitiesKept);
    }
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok()
        || nix::unistd::setuid(Uid::from_raw(0)).is_ok()
    {
        return Err(BecomeError::WayBack);
    }
    Ok(())
}

/// A process's capabilities (capabilities(7)), a bit each. The effective ones are among the permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Capabilities {
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl Capabilities {
    /// By capget(2), and prctl(2) for the ambient set.
    fn of_this_process() -> Result<Self, Errno> {
        /// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
        const VERSION_3: u32 = 0x2008_0522;
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        #[repr(C)]
        #[derive(Default, Clone, Copy)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        let mut header = Header {
            version: VERSION_3,
            pid: 0,
        };
        let mut data = [Data::default(); 2];
        // SAFETY: both pointers are to live values of the layout that version 3 of capget(2) states.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut data) };
        Errno::result(result)?;
        let set = |of: fn(&Data) -> u32| u64::from(of(&data[0])) | u64::from(of(&data[1])) << 32;
        let permitted = set(|data| data.permitted | data.effective);
        let mut ambient = 0;
        // A subset of the permitted ones.
        for capability in (0..u64::BITS).filter(|capability| permitted >> capability & 1 == 1) {
            if is_ambient(capability)? {
                ambient |= 1 << capability;
            }
        }
        Ok(Self {
            permitted,
            inheritable: set(|data| data.inheritable),
            ambient,
        })
    }

    fn fit(self, besides: Besides) -> bool {
        match besides {
            Besides::Nothing => self == Self::default(),
            Besides::OfALogin => self.permitted & !self.ambient == 0,
        }
    }
}

/// PR_CAP_AMBIENT_IS_SET of prctl(2).
fn is_ambient(capability: u32) -> Result<bool, Errno> {
    let (option, question) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET);
    let capability = libc::c_ulong::from(capability);
    // SAFETY: plain numbers; it changes nothing.
    let result = unsafe { libc::prctl(option, question, capability, 0, 0) };
    Errno::result(result).map(|is_set| is_set == 1)
}

/// Names this process in ps and /proc/self/comm.
pub(crate) fn set_name(name: &CStr) {
    // Cosmetic: a kernel that refuses loses nothing.
    let _ = prctl::set_name(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_login_hands_capabilities_on_and_only_on_purpose() {
        let none = Capabilities::default();
        let (net_raw, chown) = (1 << 13, 1);
        let inheritable = Capabilities {
            inheritable: net_raw,
            ..none
        };
        let ambient = Capabilities {
            permitted: net_raw,
            inheritable: net_raw,
            ambient: net_raw,
        };
        let more = Capabilities {
            permitted: net_raw | chown,
            ..ambient
        };
        for (capabilities, nothing, of_a_login) in [
            (none, true, true),
            (inheritable, false, true),
            (ambient, false, true),
            (more, false, false),
        ] {
            let fit =
                [Besides::Nothing, Besides::OfALogin].map(|besides| capabilities.fit(besides));
            assert_eq!(fit, [nothing, of_a_login], "{capabilities:?}");
        }
    }
}

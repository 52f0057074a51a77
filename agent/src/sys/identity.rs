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

/// Which other groups somebody may be in, or not be in, who has become a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherGroups {
    No,
    /// A login gives those that the guest's directory and its PAM know. Root's is none of them.
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
    verify(user, OtherGroups::No)
}

/// Whether this process is the user, has no capability and cannot become root again: whoever made it so.
pub(crate) fn verify(user: &Identity, others: OtherGroups) -> Result<(), BecomeError> {
    if switches::is_off("drop check") {
        return Ok(());
    }
    let users = getresuid().map_err(BecomeError::ReadBack)?;
    let grps = getresgid().map_err(BecomeError::ReadBack)?;
    let actual = getgroups().map_err(BecomeError::ReadBack)?;
    let actual: HashSet<u32> = actual.into_iter().map(Gid::as_raw).collect();
    let groups: HashSet<u32> = user.groups.iter().copied().collect();
    let groups_fit = match others {
        OtherGroups::No => actual == groups,
        OtherGroups::OfALogin => user.gid == 0 || groups.contains(&0) || !actual.contains(&0),
    };
    let ids = [users.real, users.effective, users.saved].map(Uid::as_raw);
    let gids = [grps.real, grps.effective, grps.saved].map(Gid::as_raw);
    if ids != [user.uid; 3] || gids != [user.gid; 3] || !groups_fit {
        return Err(BecomeError::WrongIdentity);
    }
    if user.uid == 0 {
        return Ok(());
    }
    if !capabilities_are_gone().map_err(BecomeError::ReadBack)? {
        return Err(BecomeError::CapabilitiesKept);
    }
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok()
        || nix::unistd::setuid(Uid::from_raw(0)).is_ok()
    {
        return Err(BecomeError::WayBack);
    }
    Ok(())
}

/// Whether the permitted, effective, inheritable and ambient sets are empty: capget(2), and prctl(2) for the ambient set.
fn capabilities_are_gone() -> Result<bool, Errno> {
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
    let empty = data
        .iter()
        .all(|data| data.effective | data.permitted | data.inheritable == 0);
    // The ambient set is a subset of the permitted one (capabilities(7)), and so is empty with it.
    Ok(empty)
}

/// Names this process in ps and /proc/self/comm.
pub(crate) fn set_name(name: &CStr) {
    // Cosmetic: a kernel that refuses loses nothing.
    let _ = prctl::set_name(name);
}

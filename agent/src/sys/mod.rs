//! Raw system calls that `nix` has no safe wrapper for: the one place of the agent with `unsafe`, one operation a
//! block, each with its reason.
#![allow(
    unsafe_code,
    reason = "this is the room for it; everything else denies it"
)]

pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod descriptors;
mod errno;
pub(crate) mod freeze;
pub(crate) mod identity;
pub(crate) mod memory;
pub(crate) mod open_files;
pub(crate) mod power;
pub(crate) mod random;
pub(crate) mod readiness;
mod rename;
pub(crate) mod socket_diag;
pub(crate) mod spawn;
pub(crate) mod terminal;
#[cfg(feature = "test-switches")]
pub(crate) mod unexecuted;

pub(crate) use errno::errno_of;
pub(crate) use rename::{RenameFlags, renameat2};

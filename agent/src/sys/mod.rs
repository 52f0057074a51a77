//! Raw system calls that `nix` has no safe wrapper for: the one place of the agent with `unsafe`, one operation a
//! block, each with its reason.
#![allow(
    unsafe_code,
    reason = "this is the room for it; everything else denies it"
)]

pub(crate) mod child;
pub(crate) mod descriptors;
mod errno;
pub(crate) mod identity;
pub(crate) mod readiness;
mod rename;
pub(crate) mod spawn;
pub(crate) mod terminal;

pub(crate) use errno::errno_of;
pub(crate) use rename::{RenameFlags, renameat2};

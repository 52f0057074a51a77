//! Raw system calls that `nix` has no safe wrapper for: the one place of the agent with `unsafe`, one operation a
//! block, each with its reason.
#![allow(
    unsafe_code,
    reason = "this is the room for it; everything else denies it"
)]

pub(crate) mod child;
pub(crate) mod readiness;
pub(crate) mod spawn;
pub(crate) mod terminal;

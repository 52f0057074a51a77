//! The guest itself: its accounts, what it is, and what changes it.

pub(crate) mod accounts;
pub(crate) mod clock;
pub(crate) mod create;
pub(crate) mod directory;
pub(crate) mod entropy;
pub(crate) mod freeze;
pub(crate) mod freezer;
pub(crate) mod generation;
pub(crate) mod info;
pub(crate) mod metrics;
mod mounts;
pub(crate) mod services;
pub(crate) mod shutdown;
pub(crate) mod tool;

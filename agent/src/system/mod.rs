//! The guest itself: its accounts, and what it is.

pub(crate) mod accounts;
pub(crate) mod create;
pub(crate) mod info;

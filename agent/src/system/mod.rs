//! The guest itself: its accounts, and what it is.

pub(crate) mod accounts;

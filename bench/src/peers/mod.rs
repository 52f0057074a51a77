//! Whom we are measured beside. Each is started once; one that does not start has a reason and no column.

pub(crate) mod gateway;
pub(crate) mod qemu;
pub(crate) mod raw;
pub(crate) mod ssh;

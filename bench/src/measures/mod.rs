//! What is measured: a module a section.

pub(crate) mod agent;
pub(crate) mod bulk;
pub(crate) mod calls;
pub(crate) mod lists;
pub(crate) mod many;
pub(crate) mod memory;
pub(crate) mod trees;

//! The harness, and the suites that read as prose. A suite is a list of cases; the same cases run against the agent's own
//! binary over a Unix socket and in real machines, through one [`target::Target`]. `cargo xtask test` runs them.

pub mod confined;
pub mod eventually;
pub mod example;
pub mod gateway;
pub mod mutations;
pub mod postgres;
pub mod promises;
pub mod runner;
pub mod sdk;
pub mod ssh;
pub mod stub;
pub mod suites;
pub mod target;

//! To come.

mod files;
mod listener;
mod network;
mod processes;
mod rpc;
mod sys;
mod system;
mod worker;

fn main() {}

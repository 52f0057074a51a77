//! Guestline's agent: a root listener that hands each connection of the host to a worker process which *is* the Linux
//! user that the host names. See docs/architecture.md.
//!
//! `guestline-agent` is the listener; `guestline-agent worker NAME` is a worker, started by it alone.

mod config;
mod control;
mod files;
mod listener;
mod network;
mod processes;
mod rpc;
mod sys;
mod system;
mod worker;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use config::{Arguments, Command, Config};

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    match arguments.command.take() {
        Some(Command::Worker { user: _ }) => worker::main(),
        None => match listen(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("guestline-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn listen(arguments: Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let config = Config::load(arguments)?;
    // One thread: the listener only waits and passes on.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("cannot start the runtime")?
        .block_on(listener::run(config))
}

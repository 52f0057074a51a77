//! Guestline's agent: a root listener that hands each connection of the host to a worker process which *is* the Linux
//! user that the host names. See docs/architecture.md.
//!
//! A library for its own targets alone: the program ([`main`]), what is counted of it ([`measured`]) and, built for that,
//! what is fuzzed (`fuzzing`).

mod arguments;
mod config;
mod control;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listener;
pub mod measured;
mod network;
mod processes;
mod roster;
mod rpc;
mod session;
mod switches;
mod sys;
mod system;
mod wary;
mod worker;

use std::{io::Write, process::ExitCode};

use anyhow::Context;

use arguments::{Command, Listening};
use config::Config;

/// The program, as its arguments want it: the listener, or one of the processes that this one starts of itself.
pub fn main() -> ExitCode {
    switches::load();
    #[cfg(feature = "test-switches")]
    sys::unexecuted::know(worker::main);
    match Command::of_process() {
        Ok(Command::Listen(options)) => match listen(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("guestline-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
        Ok(Command::Worker) => worker::main(),
        Ok(Command::Usher(user)) => session::usher::main(&user),
        Ok(Command::Freezer(limit)) => system::freezer::main(limit),
        Ok(Command::Help) => print(arguments::HELP),
        Ok(Command::Version) => print(concat!("guestline-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            eprintln!("guestline-agent: {error}");
            ExitCode::from(2)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn listen(options: Listening) -> anyhow::Result<()> {
    sys::memory::keep_little();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let open_files = sys::open_files::raise_limit();
    let open_files = open_files.context("cannot raise the limit of open files")?;
    let config = Config::load(options, open_files)?;
    // One thread: the listener only waits and passes on.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_stack_size(sys::memory::THREAD_STACK)
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the runtime")?;
    let ended = runtime.block_on(listener::run(config));
    // A thread may still close a descriptor of a user's, who says when that ends; nobody waits for it.
    runtime.shutdown_background();
    ended
}

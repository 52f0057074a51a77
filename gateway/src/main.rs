//! `guestline-gateway`: client sessions in front of many machines. Identities hold tokens; grants say which VMs and which
//! Linux users a token reaches; HTTP and SSH serve files and commands under them.
//!
//! ```text
//! http ─┬► sessions (who may: one decision) ─► machines (awake, connected) ─► guestline-client ─► agent
//! ssh ──┤                           └──► store (SQLite, PostgreSQL) ◄──┘
//!       └► audit
//! ```

mod audit;
mod cli;
mod failure;
mod http;
mod ids;
mod machines;
mod metrics;
mod printable;
mod sessions;
mod source;
mod ssh;
mod store;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Tokens, keys and secrets are in this memory: no core dump of it, and no look into it by others of the same user
    // (PR_SET_DUMPABLE, prctl(2)).
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("guestline-gateway: cannot keep its memory to itself: {error}");
        return ExitCode::FAILURE;
    }
    // What reqwest and the listener use. Another part having chosen first would be fine too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("guestline-gateway: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(cli::Arguments::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guestline-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

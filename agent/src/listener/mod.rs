//! The root process: accepts, checks the peer, reads one hello line, finds the user, hands the socket to that user's
//! worker and never touches it again. It does no gRPC, opens no path that a client names, and holds no client's bytes.
//!
//! ```text
//! Endpoint ── socket ──► Connections ── hello ──► Workers ── SCM_RIGHTS ──► worker of the user
//! is it the host?        at most 64, 5 s each     one per user, started on first use
//!                        has it the secret?
//! ```

mod account_watch;
mod allowance;
mod connections;
mod endpoint;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod greeting;
mod groups;
mod hearing;
mod keeper;
mod opening;
mod returning;
mod secrets;
mod sessions;
mod starting;
mod worker;
mod worker_log;
mod worker_socket;
mod workers;

use anyhow::Context;

pub(crate) use endpoint::ListenAddress;
pub(crate) use secrets::Secrets;
pub(crate) use starting::WorkerSettings;

use crate::{config::Config, sys::memory};
use connections::Connections;
use endpoint::Endpoint;
use workers::Workers;

/// Listens until SIGTERM or SIGINT. Workers go on serving what they have.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let endpoints = config
        .listen
        .iter()
        .map(Endpoint::listen)
        .collect::<Result<Vec<_>, _>>()?;
    let workers = Workers::spawn(config.worker_settings())?;
    config.secrets.check()?;
    let connections = Connections::new(config.users, config.secrets, workers);
    for (endpoint, address) in endpoints.into_iter().zip(config.listen) {
        tracing::info!(?address, "listening");
        tokio::spawn(accept_all(endpoint, connections.clone()));
    }
    // The tasks' first steps are of the start too.
    tokio::task::yield_now().await;
    settle();
    terminated().await.context("cannot wait for signals")
}

/// What the start alone needed goes, and what is used from now on stays.
fn settle() {
    memory::give_back();
    if let Err(errno) = memory::let_go_of_program() {
        tracing::info!(%errno, "the listener keeps what only its start needed");
    }
    if let Err(errno) = memory::hold() {
        tracing::warn!(%errno, "cannot keep the listener in memory: it is slow when memory is short");
    }
}

async fn accept_all(endpoint: Endpoint, connections: Connections) {
    loop {
        match endpoint.accept().await {
            Ok(socket) => connections.open(socket),
            Err(error) => {
                // Out of descriptors or memory: the condition passes, and spinning would not help it.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "waiting before the next connection"
                );
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn terminated() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

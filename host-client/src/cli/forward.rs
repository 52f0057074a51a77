//! `guestline forward`: listens on this host, and gives each connection to what listens in the guest.

mod local;
mod spec;

use std::{sync::Arc, time::Duration};

use guestline_client::{Error, ForwardTarget, Vm};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes, join},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
};

use self::{
    local::{Local, LocalStream},
    spec::{Forwarding, parse_target},
};
use super::{
    Outcome,
    failure::{Failure, Trying},
    output::{print, print_json_line, printable},
};

/// Connections at once: as many as the agent takes. One more waits in the listener's queue.
const MAX_CONNECTIONS: usize = 256;

/// How much is read at a time, each way: what one message of a stream carries.
const BUFFER: usize = 256 * 1024;

/// How long a listener rests that could not accept: out of descriptors, mostly.
const REST: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Connect stdin and stdout to TARGET and listen nowhere, as for ssh's ProxyCommand
    #[arg(long, value_name = "TARGET", value_parser = parse_target, conflicts_with_all = ["forwardings", "json"])]
    stdio: Option<ForwardTarget>,
    /// Print where each one listens as a line of JSON
    #[arg(long)]
    json: bool,
    /// `[LOCAL:]TARGET`, once or more. LOCAL, on this host: `PORT`, `ADDRESS:PORT` or `unix:PATH`; without an address it
    /// is 127.0.0.1, and port 0 is one that is free. TARGET, in the guest: `PORT`, `ADDRESS:PORT`, `/PATH` or
    /// `unix:PATH`. A PORT alone is both.
    #[arg(required_unless_present = "stdio", value_name = "FORWARDING")]
    forwardings: Vec<Forwarding>,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    if let Some(target) = arguments.stdio {
        return stdio(&target, vm).await;
    }
    check(vm).await?;
    let mut listeners = Vec::new();
    for forwarding in arguments.forwardings {
        let listener = Local::listen(&forwarding.local)?;
        announce(&listener, &forwarding.target, arguments.json)?;
        listeners.push((listener, forwarding.target));
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped at the end, and all their connections with them.
    let mut serving = JoinSet::new();
    for (listener, target) in listeners {
        serving.spawn(serve(listener, target, vm.clone(), Arc::clone(&places)));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = serving.join_next() => {}
    }
    // Before the runtime goes, so that a socket's file is removed.
    serving.shutdown().await;
    Ok(0)
}

/// Says now what would else be said at each connection: no agent, or not for this user.
async fn check(vm: &Vm) -> Result<(), Failure> {
    match vm.system().info().await {
        Err(error @ (Error::Connect { .. } | Error::Refused { .. } | Error::Lost(_))) => {
            Err(error).trying_to("forward", vm)
        }
        // A service that the guest's owner switched off is also an answer.
        _ => Ok(()),
    }
}

fn announce(listener: &Local, target: &ForwardTarget, json: bool) -> Result<(), Failure> {
    let (at, to) = (listener.to_string(), target.to_string());
    if json {
        return print_json_line(&json!({"listening": at, "target": to}));
    }
    let (at, to) = (printable(at.as_bytes()), printable(to.as_bytes()));
    print(format!("listening on {at}, for {to} in the guest\n").as_bytes())
}

async fn serve(listener: Local, target: ForwardTarget, vm: Vm, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        // Nobody closes it.
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        match stream {
            Ok(stream) => {
                let (target, vm) = (target.clone(), vm.clone());
                connections.spawn(async move {
                    if let Err(failure) = connect(stream, target, &vm).await {
                        failure.tell();
                    }
                    drop(place);
                });
            }
            Err(error) => {
                Failure::Host {
                    attempt: format!("cannot accept a connection on {listener}"),
                    error,
                }
                .tell();
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connect(mut local: LocalStream, target: ForwardTarget, vm: &Vm) -> Result<(), Failure> {
    let result = copy(&mut local, &target, vm).await;
    if result.is_err() {
        // Whoever is there must not take it for an end.
        local.reset_on_drop();
    }
    result
}

async fn copy(
    local: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &ForwardTarget,
    vm: &Vm,
) -> Result<(), Failure> {
    let what = format!("forward to {target}");
    let opened = vm.network().forward(target.clone()).await;
    let mut guest = opened.trying_to(&what, vm)?;
    match copy_bidirectional_with_sizes(local, &mut guest, BUFFER, BUFFER).await {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast::<Error>() {
            Ok(error) => Err(error).trying_to(&what, vm),
            Err(error) => Err(Failure::Host {
                attempt: format!("the connection for {target} broke on this host"),
                error,
            }),
        },
    }
}

/// Ends when both sides have ended, as `ssh -W` does.
async fn stdio(target: &ForwardTarget, vm: &Vm) -> Outcome {
    let mut local = join(tokio::io::stdin(), tokio::io::stdout());
    copy(&mut local, target, vm).await.map(|()| 0)
}

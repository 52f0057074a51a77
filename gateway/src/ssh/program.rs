//! A shell or a command in the guest, at a client's channel: bytes both ways, signals, sizes, the end.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use guestline_client::{Child, Command, Event, Input, SignalTarget};

use super::{
    access::{Access, Permitted, Reached},
    client::{Client, Gone},
    failure::Failure,
    inbox::{Inbox, Request},
    session::{Circumstances, Wanted},
    signals,
};
use crate::{audit::Operation, sessions::Verb};

/// Runs it to its end, or until the client closes the channel: the guest hangs it up then.
pub(super) async fn run(
    wanted: Wanted,
    circumstances: Circumstances,
    inbox: &mut Inbox,
    client: &Client,
    access: &Access,
) {
    let begun = match &wanted {
        Wanted::Command(line) => {
            let line = String::from_utf8_lossy(line).into_owned();
            access.begin(Verb::Exec, Some(line)).await
        }
        Wanted::Shell | Wanted::Sftp => access.begin(Verb::Shell, None).await,
    };
    let mut permitted = match begun {
        Ok(permitted) => permitted,
        Err(failure) => {
            let _ = client.failed(&failure).await;
            return;
        }
    };
    let started = start(&wanted, circumstances, &permitted, client, access).await;
    match started {
        Ok((child, _reached)) => attend(child, &mut permitted, inbox, client).await,
        Err(failure) => {
            permitted.set_result(failure.code);
            let _ = client.failed(&failure).await;
        }
    }
}

/// Wakes the VM, and says so to a person who would wonder.
async fn start(
    wanted: &Wanted,
    circumstances: Circumstances,
    permitted: &Permitted,
    client: &Client,
    access: &Access,
) -> Result<(Child, Reached), Failure> {
    if permitted.is_asleep() && circumstances.terminal.is_some() {
        let _ = client.say("waking the VM…").await;
    }
    let reached = access.reach(permitted).await?;
    let command = command(wanted, circumstances, &reached, access)?;
    Ok((command.spawn().await?, reached))
}

/// A line is for the user's login shell as `-c`; without one, it is a login shell.
fn command(
    wanted: &Wanted,
    circumstances: Circumstances,
    reached: &Reached,
    access: &Access,
) -> Result<Command, Failure> {
    let mut command = match wanted {
        Wanted::Command(line) if line.contains(&0) => {
            let text = "a command line has no NUL byte";
            return Err(Failure::new("BAD_REQUEST", text));
        }
        Wanted::Command(line) => reached.guest.shell(OsStr::from_bytes(line)),
        Wanted::Shell | Wanted::Sftp => reached.guest.login_shell(),
    };
    if let Some(directory) = reached.workdir() {
        command.current_dir(directory);
    }
    command.stdin(true);
    let peer = access.peer();
    // As sshd(8) has it; our own address is not the guest's, and tells it nothing.
    command.env(
        "SSH_CLIENT",
        format!("{} {} 22", peer.ip().to_canonical(), peer.port()),
    );
    for (name, value) in circumstances.variables {
        command.env(name, value);
    }
    if let Some(terminal) = circumstances.terminal {
        command.terminal(terminal.term, terminal.columns, terminal.rows);
    }
    Ok(command)
}

/// Until the program ends, or the channel. Dropping the child hangs it up.
async fn attend(mut child: Child, permitted: &mut Permitted, inbox: &mut Inbox, client: &Client) {
    let (input, operation) = (child.input(), permitted.operation.clone());
    let result = tokio::select! {
        result = tell(&mut child, client, &operation) => result,
        () = feed(inbox, &input, &operation) => return,
    };
    match result {
        Ok(Ok(())) => permitted.set_result("ok"),
        Ok(Err(failure)) => {
            permitted.set_result(failure.code);
            let _ = client.failed(&failure).await;
        }
        Err(Gone) => {}
    }
}

/// What the program does, to the client.
async fn tell(
    child: &mut Child,
    client: &Client,
    operation: &Operation,
) -> Result<Result<(), Failure>, Gone> {
    loop {
        match child.event().await {
            Ok(Event::Stdout(data)) => {
                operation.add_bytes_out(data.len());
                client.stdout(data).await?;
            }
            Ok(Event::Stderr(data)) => {
                operation.add_bytes_out(data.len());
                client.stderr(data).await?;
            }
            Ok(Event::Exited(status)) => {
                let code = match (status.code, status.signal) {
                    (_, Some(signal)) => 128 + signal,
                    (code, None) => code.unwrap_or_default(),
                };
                operation.set_exit_status(code);
                client.exited(&status).await?;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error.into())),
        }
    }
}

/// What the client does, to the program. Ends with the channel.
async fn feed(inbox: &mut Inbox, input: &Input, operation: &Operation) {
    while let Some(request) = inbox.next().await {
        match request {
            Request::Data(data) => {
                operation.add_bytes_in(data.len());
                input.write(data).await;
            }
            Request::Eof => input.close().await,
            Request::Resize { columns, rows } => input.resize(columns, rows).await,
            Request::Signal(signal) => {
                if let Some(number) = signals::number(&signal) {
                    input.signal(number, SignalTarget::Group).await;
                }
            }
            Request::Terminal { .. }
            | Request::Variable { .. }
            | Request::Shell
            | Request::Command(_)
            | Request::Sftp => {}
        }
    }
}

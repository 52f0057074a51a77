//! `guestline exec`, and the session that `shell` shares with it: bytes both ways, signals, sizes, the exit code.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use guestline_client::{Child, Command, Event, ExitStatus, Input, SignalTarget, Vm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use super::{
    Outcome,
    failure::{Failure, Trying},
    output::printable,
    terminal,
};

const INPUT_CHUNK: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Pass our stdin on; the program's is empty otherwise, unless it has a terminal
    #[arg(short, long)]
    interactive: bool,
    /// Set a variable of the program's environment
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Where to start; the user's home otherwise
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
    /// End the program after so many seconds; that gives exit code 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Take the words as one line for the user's login shell
    #[arg(long)]
    shell: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "expected seconds, as in 1.5")?;
    match Duration::try_from_secs_f64(number) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("expected more than 0 seconds".into()),
    }
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let name = printable(arguments.command[0].as_encoded_bytes());
    let mut command = match arguments.shell {
        true => vm.shell(arguments.command.join(" ".as_ref())),
        false => vm.command(&arguments.command[0]),
    };
    command
        .args(&arguments.command[1..])
        .stdin(arguments.interactive);
    for (name, value) in arguments.env {
        command.env(name, value);
    }
    if let Some(directory) = arguments.cwd {
        command.current_dir(directory);
    }
    if let Some(limit) = arguments.timeout {
        command.timeout(limit);
    }
    let what = format!("run {name}");
    session(
        &command,
        arguments.tty,
        arguments.interactive || arguments.tty,
        &what,
        vm,
    )
    .await
}

/// Runs the command with our stdin, stdout, stderr and signals, and gives its exit code.
pub(super) async fn session(
    command: &Command,
    tty: bool,
    interactive: bool,
    what: &str,
    vm: &Vm,
) -> Outcome {
    let mut command = command.clone();
    if tty {
        let (columns, rows) = terminal::size();
        command.terminal(terminal::kind(), columns, rows);
    }
    let child = command.spawn().await.trying_to(what, vm)?;
    // Raw only once the program is there: until then ^C ends us.
    let raw = if tty { terminal::Raw::enter()? } else { None };
    let feeding = interactive.then(|| Feeding(tokio::spawn(feed(child.input()))));
    let end = relay(child, tty, what, vm).await;
    drop(feeding);
    drop(raw);
    Ok(exit_code(&end?))
}

/// The task that feeds stdin; it ends with the session.
struct Feeding(JoinHandle<()>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn feed(input: Input) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut chunk = Vec::with_capacity(INPUT_CHUNK);
        match stdin.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => input.write(chunk).await,
        }
    }
    input.close().await;
}

async fn relay(mut child: Child, tty: bool, what: &str, vm: &Vm) -> Result<ExitStatus, Failure> {
    let input = child.input();
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut signals = Signals::listen()?;
    loop {
        let event = tokio::select! {
            event = child.event() => event.trying_to(what, vm)?,
            number = signals.next() => {
                // Not awaited: behind a full stdin it would keep us from taking the output that unblocks the program.
                tokio::spawn(forward(input.clone(), number, tty));
                continue;
            }
        };
        match event {
            Event::Stdout(data) => {
                stdout.write_all(&data).await?;
                stdout.flush().await?;
            }
            Event::Stderr(data) => {
                stderr.write_all(&data).await?;
                stderr.flush().await?;
            }
            Event::Exited(status) => return Ok(status),
        }
    }
}

async fn forward(input: Input, number: i32, tty: bool) {
    if number == SignalKind::window_change().as_raw_value() {
        if tty {
            let (columns, rows) = terminal::size();
            input.resize(columns, rows).await;
        }
        return;
    }
    input.signal(number, SignalTarget::Group).await;
}

/// The signals to this process that are meant for the program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hang_up: Signal,
    window: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
            _ = self.window.recv() => SignalKind::window_change(),
        };
        kind.as_raw_value()
    }
}

/// As ssh(1) and timeout(1) have them.
fn exit_code(status: &ExitStatus) -> u8 {
    if status.out_of_memory {
        eprintln!("guestline: the guest ran out of memory and ended the program");
    }
    match (status.timed_out, status.code, status.signal) {
        (true, ..) => {
            eprintln!("guestline: the program was ended because its time was over");
            124
        }
        (_, Some(code), _) => u8::try_from(code).unwrap_or(125),
        (_, None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(125),
        (_, None, None) => 125,
    }
}

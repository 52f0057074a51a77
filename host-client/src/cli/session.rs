//! A program at our stdin, stdout and stderr: bytes both ways, signals, sizes, the exit code. Shared by `exec`, `shell`,
//! `run` and `attach`.

use std::sync::Arc;

use guestline_client::{
    AttachEvent, Attached, Child, Command, Error, Event, ExitStatus, Input, SignalTarget, Vm,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};

use super::{
    Outcome,
    failure::{Failure, Trying},
    terminal,
};

const INPUT_CHUNK: usize = 64 * 1024;

/// Ctrl-], which leaves a detached program as it leaves telnet(1).
const LEAVE: u8 = 0x1d;

/// What we pass to the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    /// It has a terminal: ours becomes raw, and its size follows ours.
    pub(super) tty: bool,
    /// Our stdin.
    pub(super) stdin: bool,
}

/// Runs the command with our stdin, stdout, stderr and signals, and gives its exit code.
pub(super) async fn session(command: &Command, passing: Passing, what: &str, vm: &Vm) -> Outcome {
    let mut command = command.clone();
    if passing.tty {
        let (columns, rows) = terminal::size();
        command.terminal(terminal::kind(), columns, rows);
    }
    let child = command.spawn().await.trying_to(what, vm)?;
    match relay(Session::Child(child), passing).await? {
        End::Exited(status) => Ok(exit_code(&status)),
        End::Failed(_, error) => Err(error).trying_to(what, vm),
        // Only a detached program can be left.
        End::Left => Ok(0),
    }
}

/// A program that we are at.
#[derive(Debug)]
pub(super) enum Session {
    /// It is ours: signals to us go to it.
    Child(Child),
    /// It lives on without us: an interrupt leaves it, unless our terminal is its terminal.
    Attached(Attached),
}

/// How it ended for us.
#[derive(Debug)]
pub(super) enum End {
    Exited(ExitStatus),
    /// We left a program that lives on.
    Left,
    Failed(Box<Session>, Error),
}

enum Heard {
    Stdout(bytes::Bytes),
    Stderr(bytes::Bytes),
    Lost(u64),
    Exited(ExitStatus),
}

impl Session {
    fn input(&self) -> Input {
        match self {
            Self::Child(child) => child.input(),
            Self::Attached(attached) => attached.input(),
        }
    }

    async fn next(&mut self) -> Result<Heard, Error> {
        Ok(match self {
            Self::Child(child) => match child.event().await? {
                Event::Stdout(data) => Heard::Stdout(data),
                Event::Stderr(data) => Heard::Stderr(data),
                Event::Exited(status) => Heard::Exited(status),
            },
            Self::Attached(attached) => match attached.event().await? {
                AttachEvent::Stdout(data) => Heard::Stdout(data),
                AttachEvent::Stderr(data) => Heard::Stderr(data),
                AttachEvent::Lost { stdout, stderr } => Heard::Lost(stdout.saturating_add(stderr)),
                AttachEvent::Exited(status) => Heard::Exited(status),
            },
        })
    }
}

/// Until the program ends, or we leave it.
pub(super) async fn relay(session: Session, passing: Passing) -> Result<End, Failure> {
    // Raw only once the program is there: until then ^C ends us.
    let raw = if passing.tty {
        terminal::Raw::enter()?
    } else {
        None
    };
    let leavable = matches!(session, Session::Attached(_)) && raw.is_some();
    let leave = Arc::new(Notify::new());
    let input = session.input();
    let feeding = passing.stdin.then(|| {
        Feeding(tokio::spawn(feed(
            input,
            leavable.then(|| Arc::clone(&leave)),
        )))
    });
    let end = pass_on(session, passing, &leave).await;
    drop(feeding);
    drop(raw);
    end
}

/// The task that feeds stdin; it ends with the session.
struct Feeding(JoinHandle<()>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `leave`: tells that the person at a raw terminal wants to leave the program.
async fn feed(input: Input, leave: Option<Arc<Notify>>) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut chunk = Vec::with_capacity(INPUT_CHUNK);
        match stdin.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if let Some(leave) = &leave
            && chunk.contains(&LEAVE)
        {
            return leave.notify_one();
        }
        input.write(chunk).await;
    }
    input.close().await;
}

async fn pass_on(mut session: Session, passing: Passing, leave: &Notify) -> Result<End, Failure> {
    let input = session.input();
    let is_attached = matches!(session, Session::Attached(_));
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut signals = Signals::listen()?;
    loop {
        let heard = tokio::select! {
            heard = session.next() => heard,
            number = signals.next() => {
                if is_attached && number != SignalKind::window_change().as_raw_value() {
                    return Ok(End::Left);
                }
                // Not awaited: behind a full stdin it would keep us from taking the output that unblocks the program.
                tokio::spawn(forward(input.clone(), number, passing.tty));
                continue;
            }
            () = leave.notified() => return Ok(End::Left),
        };
        match heard {
            Ok(Heard::Stdout(data)) => {
                stdout.write_all(&data).await?;
                stdout.flush().await?;
            }
            Ok(Heard::Stderr(data)) => {
                stderr.write_all(&data).await?;
                stderr.flush().await?;
            }
            Ok(Heard::Lost(bytes)) => {
                eprintln!("guestline: {bytes} bytes of output are no longer kept in the guest");
            }
            Ok(Heard::Exited(status)) => return Ok(End::Exited(status)),
            Err(error) => return Ok(End::Failed(Box::new(session), error)),
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
pub(super) fn exit_code(status: &ExitStatus) -> u8 {
    if status.out_of_memory {
        eprintln!(
            "guestline: the guest's kernel ended the program for want of memory: its own limit's, or all there is"
        );
    }
    match (status.timed_out, status.code, status.signal) {
        (true, ..) => {
            eprintln!("guestline: the program was ended because its time was over");
            124
        }
        (_, Some(code), _) => u8::try_from(code).unwrap_or(125),
        (_, None, Some(signal)) => u8::try_from(signal.saturating_add(128)).unwrap_or(125),
        (_, None, None) => 125,
    }
}

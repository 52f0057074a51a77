//! The process in a login session: starts one program for the user's worker, and tells how it ended. It is the program's
//! parent for as long as somebody wants to know.

use std::{
    io,
    io::Read,
    os::unix::{ffi::OsStringExt, net::UnixStream},
    process::ExitCode,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        wait::waitpid,
    },
    unistd::Pid,
};

use super::{
    Ended, Greeting, Launch, Launched, PATIENCE, VERSION, receive, receive_descriptors, send,
};
use crate::sys::{
    child, descriptors,
    identity::{self, Besides, Identity},
    spawn,
};
use std::os::fd::AsFd;

/// What systemd sets for the unit that the usher is the main process of, and what is not the program's (systemd.exec(5)).
const UNITS_OWN: [&[u8]; 12] = [
    b"INVOCATION_ID",
    b"JOURNAL_STREAM",
    b"SYSTEMD_EXEC_PID",
    b"MEMORY_PRESSURE_WATCH",
    b"MEMORY_PRESSURE_WRITE",
    b"MAINPID",
    b"MANAGERPID",
    b"NOTIFY_SOCKET",
    b"LISTEN_FDS",
    b"LISTEN_PID",
    b"WATCHDOG_USEC",
    b"WATCHDOG_PID",
];

/// Runs the usher from its first instruction to its end.
pub(crate) fn main(user: &Identity) -> ExitCode {
    identity::set_name(c"guestline-usher");
    // It is to start whatever the worker says, and who made it this user was somebody else.
    if let Err(error) = identity::verify(user, Besides::OfALogin) {
        // Into the agent's log.
        eprintln!("guestline-usher: {}: {error}", user.uid);
        return ExitCode::FAILURE;
    }
    // Who ends the session ends all in it at once; the usher stays for the moment in which it tells.
    let asked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT]);
    if asked.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    match usher() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads what it would say: the worker sees the end of the stream.
        Err(_) => ExitCode::FAILURE,
    }
}

fn usher() -> io::Result<()> {
    let stream = UnixStream::from(descriptors::take_stdin()?);
    // The listener's ear for systemd-run, which is to hear its end.
    descriptors::silence_output()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let greeting = Greeting {
        version: VERSION,
        pid: std::process::id().cast_signed(),
        environment: environment(),
    };
    send(&stream, &greeting)?;
    let stdio = receive_descriptors(&stream)?;
    let Launch { program, terminal } = receive(&stream)?;
    let started = spawn::spawn(
        &program,
        stdio.each_ref().map(AsFd::as_fd),
        terminal,
        |_| Ok(()),
    );
    // The other end of a pipe must hear when the program closes its own.
    drop(stdio);
    match started {
        Ok(pid) => {
            send(&stream, &Launched(Ok(pid.as_raw())))?;
            attend(pid, &stream)
        }
        Err(failed) => send(&stream, &Launched(Err((failed.step, failed.errno as i32)))),
    }
}

/// To the program's end, and until the worker needs its numbers no more.
fn attend(pid: Pid, stream: &UnixStream) -> io::Result<()> {
    let (status, usage) = child::await_exit(pid)?;
    stream.set_read_timeout(None)?;
    let told = send(stream, &Ended { status, usage });
    if told.is_ok() {
        // A worker that is gone has ended the stream as well.
        let mut stream = stream;
        let _ = stream.read(&mut [0]);
    }
    while waitpid(pid, None) == Err(Errno::EINTR) {}
    told
}

fn environment() -> Vec<(Vec<u8>, Vec<u8>)> {
    let variables = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
    variables
        .filter(|(name, _)| !UNITS_OWN.contains(&name.as_slice()))
        .collect()
}

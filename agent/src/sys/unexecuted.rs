//! A worker that is forked and not executed, as none ever is: for the test that shows what it would know.

use std::{
    fs,
    os::{
        fd::{BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitCode, exit},
    sync::OnceLock,
    thread,
};

use nix::{
    sys::socket::{SockType as SocketKind, getsockopt, sockopt::SockType},
    unistd,
};

type Main = fn() -> ExitCode;

static WORKER: OnceLock<Main> = OnceLock::new();

/// Tells what a worker does. The listener does not know it.
pub(crate) fn know(worker: Main) {
    let _ = WORKER.set(worker);
}

/// The child runs the worker in place of the program, with all that its parent has in memory. The program's start has told
/// what that is.
pub(crate) fn run_instead(command: &mut Command) {
    let Some(&main) = WORKER.get() else { return };
    let run = move || {
        close_packet_sockets();
        // A runtime of its own wants a thread that has none.
        let ended = thread::spawn(main).join();
        exit(i32::from(ended.is_err()))
    };
    // SAFETY: it is not async-signal-safe, and so never in a shipped binary: a lock that another thread held in the moment of
    // the fork would stop the child, and the test that wants it would fail.
    unsafe { command.pre_exec(run) };
}

/// The parent waits until an exec has closed its end of one; the others are workers' of whom this one knows nothing. What remains
/// the runtime shares with the listener's, and has use for.
fn close_packet_sockets() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<RawFd>>() {
        // SAFETY: nothing in this process closes it meanwhile. That of the folder is closed, which is an error.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        if getsockopt(&socket, SockType) == Ok(SocketKind::SeqPacket) {
            let _ = unistd::close(number);
        }
    }
}

//! A worker that is forked and not executed, as none ever is: for the test that shows what it would know.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode, exit},
    sync::OnceLock,
    thread,
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
        // A runtime of its own wants a thread that has none.
        let ended = thread::spawn(main).join();
        exit(i32::from(ended.is_err()))
    };
    // SAFETY: it is not async-signal-safe, and so never in a shipped binary: a lock that another thread held in the moment of
    // the fork would stop the child, and the test that wants it would fail.
    unsafe { command.pre_exec(run) };
}

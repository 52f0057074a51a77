//! The process that holds the guest's file systems frozen, and thaws them when its time is over, when it is told to
//! (SIGTERM), or when one of them does not freeze. Started by `freeze` alone, as the user who asked.
//!
//! ```text
//! main thread      owns what is frozen; waits for events until the limit
//! freezing thread  FIFREEZE in the reverse order of mounting: a loop device's file lies on what was mounted before it.
//!                  The kernel may hold it there; what is frozen by then thaws in time all the same
//! signal thread    SIGTERM, SIGINT, SIGHUP
//! ```
//!
//! Nothing here writes to a file system, but for the lock in /run, before anything is frozen.

use std::{
    fs,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal},
    unistd::dup2_stdout,
};

use super::{
    freeze::{self, Answer, FreezeError, Operation},
    mounts::{self, Mounted},
};
use crate::sys::{self, descriptors, identity};

enum Event {
    Frozen(Mounted),
    /// Nothing more will be frozen.
    Done(Result<(), FreezeError>),
    ToldToThaw,
}

/// Runs the freezer from its first instruction to its end.
pub(crate) fn main(limit: Duration) -> ExitCode {
    let end = Instant::now() + limit;
    if descriptors::close_from(3).is_err() {
        return ExitCode::FAILURE;
    }
    identity::set_name(c"guestline-freeze");
    // Without it nobody thaws. Needs root, as freezing does.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // The lock lives as long as this process.
    let _lock = match freeze::lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => return answer(&Err(FreezeError::Busy)),
        Err(error) => return answer(&Err(error)),
    };
    let (events, incoming) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    if watch_signals(events.clone()).is_err() {
        return ExitCode::FAILURE;
    }
    let stopped = Arc::clone(&stop);
    let freezing = thread::Builder::new().spawn(move || {
        let result = freeze_all(&events, &stopped);
        // The main thread receives until it has this.
        let _ = events.send(Event::Done(result));
    });
    if freezing.is_err() {
        return ExitCode::FAILURE;
    }
    hold(&incoming, &stop, end)
}

fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Inherited by the threads to come.
    signals.thread_block()?;
    thread::Builder::new()
        .spawn(move || while signals.wait().is_ok() && events.send(Event::ToldToThaw).is_ok() {})
        .map(drop)
}

fn freeze_all(events: &Sender<Event>, stop: &AtomicBool) -> Result<(), FreezeError> {
    let mut frozen = 0;
    for mounted in mounts::on_block_devices()?.into_iter().rev() {
        if stop.load(Ordering::Relaxed) {
            return Err(FreezeError::Overtaken);
        }
        match sys::freeze::freeze(&mounted.file) {
            Ok(()) => {
                frozen += 1;
                let _ = events.send(Event::Frozen(mounted));
            }
            // vfat, iso9660 and their like cannot; they have no journal to make whole either.
            Err(Errno::EOPNOTSUPP) => {}
            Err(Errno::EBUSY) => return Err(FreezeError::Busy),
            Err(errno) => {
                let point = mounted.point.as_os_str().as_bytes();
                return Err(FreezeError::refused(Operation::Freeze, point, errno));
            }
        }
    }
    if frozen == 0 {
        return Err(FreezeError::Nothing);
    }
    Ok(())
}

/// Until everything is thawed and nothing more can be frozen.
fn hold(incoming: &Receiver<Event>, stop: &AtomicBool, end: Instant) -> ExitCode {
    let mut held: Vec<Mounted> = Vec::new();
    let (mut over, mut done) = (false, false);
    loop {
        let event = if over {
            incoming.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            incoming.recv_timeout(end.saturating_duration_since(Instant::now()))
        };
        match event {
            Ok(Event::Frozen(mounted)) => held.push(mounted),
            Ok(Event::Done(result)) => {
                done = true;
                let result = match result {
                    Ok(()) if over => Err(FreezeError::Overtaken),
                    result => result.map(|()| points(&held)),
                };
                over |= result.is_err();
                if over {
                    thaw(&mut held);
                }
                answer(&result);
            }
            Ok(Event::ToldToThaw) | Err(_) => {
                over = true;
                stop.store(true, Ordering::Relaxed);
            }
        }
        if over {
            thaw(&mut held);
        }
        if over && done {
            return ExitCode::SUCCESS;
        }
    }
}

fn points(held: &[Mounted]) -> Vec<Vec<u8>> {
    let points = held.iter().map(|mounted| mounted.point.as_os_str());
    points.map(|point| point.as_bytes().to_vec()).collect()
}

/// The last frozen first. EINVAL says that somebody thawed it already; any other refusal the kernel gives to `Thaw` too.
fn thaw(held: &mut Vec<Mounted>) {
    while let Some(mounted) = held.pop() {
        let _ = sys::freeze::thaw(&mounted.file);
    }
}

/// Says it to the worker, which may be gone, and lets go of the pipe: its end is the answer's.
fn answer(answer: &Answer) -> ExitCode {
    let Ok(bytes) = postcard::to_stdvec(answer) else {
        return ExitCode::FAILURE;
    };
    let mut stdout = io::stdout();
    let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
    match fs::File::open("/dev/null") {
        Ok(null) => {
            let _ = dup2_stdout(null);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

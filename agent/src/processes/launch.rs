//! From a spec to a running child: argument vector, environment, directory and descriptors.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Pid, pipe2},
};

use super::{
    environment::{candidates, environment, shell},
    error::RunError,
    group::{Group, Limits, Unconfined, Wishes},
    leader::Leader,
    spec::{Command, ProcessSpec},
};
use crate::{
    session::Session,
    switches,
    sys::{
        errno_of,
        spawn::{Program, Step, StepError, spawn},
        terminal,
    },
    system::accounts::Account,
};

/// Pipes of the kernel's default 64 KiB make a fast program wait for every chunk; 256 KiB need no privilege.
const PIPE_SIZE: i32 = 256 * 1024;

/// How many milliseconds a busy program is waited for, in turn. It is busy, too, when another child was forked while a Files call
/// wrote it: that child holds the file until its own exec, a moment later. One that is still being written stays busy.
const BUSY_PAUSES: [u64; 4] = [1, 4, 16, 64];

/// Our ends of a child's descriptors, all nonblocking.
#[derive(Debug)]
pub(super) struct OurEnds {
    pub(super) stdin: Option<OwnedFd>,
    /// With a terminal, its master, as `stdin` and `terminal` are.
    pub(super) stdout: OwnedFd,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

/// What become the child's 0, 1 and 2.
type ChildEnds = [OwnedFd; 3];

/// What a program finds around it that is not in its spec.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// `None`: programs get no cgroup.
    pub(super) wishes: Option<Wishes>,
    /// Their soft limit of descriptors; `None`: that of this process.
    pub(super) open_files: Option<u64>,
}

/// Starts the program. Blocks until its exec succeeded or failed.
pub(super) fn launch(
    account: &Account,
    spec: &ProcessSpec,
    surroundings: &Surroundings,
) -> Result<(Leader, Option<Group>, OurEnds), RunError> {
    let session = match spec.login_session {
        true => Some(open_session(surroundings.wishes.as_ref())?),
        false => None,
    };
    let environment = session
        .as_ref()
        .map_or(&[][..], |session| &session.environment);
    // In a session its limits are PAM's.
    let open_files = surroundings.open_files.filter(|_| session.is_none());
    let program = program(account, spec, environment, open_files)?;
    let told = |error: StepError| RunError::Start {
        operation: error.step.name(),
        subject: subject(error.step, &program),
        source: error.errno,
    };
    let (ours, child) = match &spec.terminal {
        Some(terminal) => with_terminal(terminal.size).map_err(Step::Terminal.failed()),
        None => with_pipes(spec).map_err(Step::Descriptors.failed()),
    }
    .map_err(told)?;
    let child = child.each_ref().map(AsFd::as_fd);
    if let Some(session) = session {
        let (leader, group) = in_session(session, &program, child, spec).map_err(told)?;
        return Ok((leader, group, ours));
    }
    let mut group = None;
    switches::point("run: prepared");
    let pid = patiently(|| {
        spawn(&program, child, spec.terminal.is_some(), |pid| {
            group = confined(pid, spec.limits, surroundings.wishes.as_ref())?;
            if account.uid == 0 {
                leave_to_oom_killer(pid);
            }
            switches::point("run: confined");
            Ok(())
        })
    });
    switches::point("run: started");
    Ok((Leader::child(pid.map_err(told)?), group, ours))
}

/// Waits until the guest's systemd has opened a login session, and the usher is in it.
fn open_session(wishes: Option<&Wishes>) -> Result<Session, RunError> {
    let wishes = wishes.ok_or(RunError::LoginSession(Errno::EOPNOTSUPP))?;
    let socket = wishes.open_session().map_err(RunError::LoginSession)?;
    Session::meet(socket).map_err(|error| RunError::LoginSession(session_errno(&error)))
}

/// An usher that was not let in, or did not come, has no errno of its own.
fn session_errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

fn in_session(
    session: Session,
    program: &Program,
    child: [BorrowedFd<'_>; 3],
    spec: &ProcessSpec,
) -> Result<(Leader, Option<Group>), StepError> {
    let usher = session.usher;
    let launched = session.launch(program, child, spec.terminal.is_some());
    // Its end came before its answer: as if the program could not be forked.
    let launched = launched.map_err(|error| Step::Fork.failed()(session_errno(&error)))?;
    let (pid, stream) = launched.map_err(|(step, errno)| StepError {
        step,
        errno: Errno::from_raw(errno),
    })?;
    Ok((
        Leader::in_session(pid, stream),
        Group::of_session(usher, pid),
    ))
}

/// A program that asks for no limits runs also where it cannot have a cgroup.
fn confined(pid: Pid, limits: Limits, wishes: Option<&Wishes>) -> Result<Option<Group>, Errno> {
    let confined = match wishes {
        Some(wishes) => wishes.confine(pid.as_raw(), limits),
        None => Err(Unconfined::Unavailable),
    };
    match confined {
        Ok(group) => Ok(Some(group)),
        Err(_) if limits.is_none() => Ok(None),
        Err(Unconfined::Unavailable) => Err(Errno::EOPNOTSUPP),
        Err(Unconfined::Refused(errno)) => Err(errno),
    }
}

/// Root's worker is kept from the OOM killer (proc_pid_oom_score_adj(5)), and a child inherits that.
fn leave_to_oom_killer(pid: Pid) {
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
}

/// Tries again while the program is busy.
fn patiently(mut start: impl FnMut() -> Result<Pid, StepError>) -> Result<Pid, StepError> {
    for pause in BUSY_PAUSES {
        match start() {
            Err(error) if error.errno == Errno::ETXTBSY => {
                thread::sleep(Duration::from_millis(pause));
            }
            result => return result,
        }
    }
    start()
}

/// The argument vector that the spec comes to, its first word as the program will see it.
pub(super) fn arguments(account: &Account, command: &Command) -> Vec<Vec<u8>> {
    match command {
        Command::Arguments(arguments) => arguments.clone(),
        Command::ShellLine { line, login } => {
            let name = if *login {
                login_name(shell(account))
            } else {
                shell(account).to_vec()
            };
            vec![name, b"-c".to_vec(), line.clone()]
        }
        Command::LoginShell => vec![login_name(shell(account))],
    }
}

fn program(
    account: &Account,
    spec: &ProcessSpec,
    session: &[(Vec<u8>, Vec<u8>)],
    open_files: Option<u64>,
) -> Result<Program, RunError> {
    let environment = environment(account, spec, session);
    let arguments = arguments(account, &spec.command);
    let candidates = match &spec.command {
        Command::Arguments(_) => candidates(&arguments[0], &environment),
        Command::ShellLine { .. } | Command::LoginShell => vec![shell(account).to_vec()],
    };
    let variables = environment
        .into_iter()
        .map(|(name, value)| [&name[..], b"=", &value].concat());
    Ok(Program {
        candidates: strings(candidates)?,
        arguments: strings(arguments)?,
        environment: strings(variables)?,
        directories: strings(directories(account, spec))?,
        umask: spec.umask,
        open_files,
    })
}

fn directories(account: &Account, spec: &ProcessSpec) -> Vec<Vec<u8>> {
    match &spec.directory {
        // Joined to an absolute directory, the home has no part in it.
        Some(directory) => vec![account.home.join(directory).as_os_str().as_bytes().into()],
        None => vec![account.home.as_os_str().as_bytes().into(), b"/".to_vec()],
    }
}

/// `-bash` for /usr/bin/bash, as login(1) does.
fn login_name(shell: &[u8]) -> Vec<u8> {
    let name = shell.rsplit(|&byte| byte == b'/').next().unwrap_or(shell);
    [b"-", name].concat()
}

/// A NUL cannot get here through the service, which refuses it with the field's name.
fn strings(strings: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<CString>, RunError> {
    let strings = strings.into_iter().map(CString::new);
    strings
        .collect::<Result<_, _>>()
        .map_err(|error| RunError::Start {
            operation: Step::Fork.name(),
            subject: error.into_vec(),
            source: Errno::EINVAL,
        })
}

fn subject(step: Step, program: &Program) -> Vec<u8> {
    let subject = match step {
        Step::Directory => program.directories.last(),
        // What was looked for in several folders is named as it was asked for.
        Step::Exec if program.candidates.len() == 1 => program.candidates.first(),
        Step::Exec => program.arguments.first(),
        Step::Fork | Step::Session | Step::Terminal | Step::Descriptors | Step::Cgroup => None,
    };
    subject.map_or_else(Vec::new, |subject| subject.as_bytes().to_vec())
}

fn with_terminal(size: terminal::WindowSize) -> Result<(OurEnds, ChildEnds), Errno> {
    let (master, peer) = terminal::open(size)?;
    let ours = OurEnds {
        stdin: Some(duplicate(&master)?),
        terminal: Some(duplicate(&master)?),
        stdout: master,
        stderr: None,
    };
    Ok((ours, [duplicate(&peer)?, duplicate(&peer)?, peer]))
}

fn with_pipes(spec: &ProcessSpec) -> Result<(OurEnds, ChildEnds), Errno> {
    let (child_stdin, stdin) = if spec.stdin {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        nonblocking(&writer)?;
        (reader, Some(writer))
    } else {
        let null = File::open("/dev/null").map_err(|error| errno_of(&error))?;
        (null.into(), None)
    };
    let (stdout, child_stdout) = output_pipe()?;
    let (stderr, child_stderr) = if spec.merge_stderr {
        (None, duplicate(&child_stdout)?)
    } else {
        let (reader, writer) = output_pipe()?;
        (Some(reader), writer)
    };
    let ours = OurEnds {
        stdin,
        stdout,
        stderr,
        terminal: None,
    };
    Ok((ours, [child_stdin, child_stdout, child_stderr]))
}

fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // A user with many pipes (pipe-user-pages-soft) keeps the default size.
    let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    nonblocking(&reader)?;
    Ok((reader, writer))
}

/// Of our end alone: each end of a pipe is an open file description of its own.
fn nonblocking(descriptor: &OwnedFd) -> Result<(), Errno> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// Closed on exec, as `try_clone` promises.
fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd, Errno> {
    let copy = descriptor.try_clone();
    copy.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EMFILE as i32)))
}

//! What to run in the guest and how, in the manner of `std::process::Command`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use bytes::Bytes;
use guestline_proto::v1::{
    ArgumentVector, DisconnectPolicy, LeftoverPolicy, Limits, LoginShell, ProcessSpec, RunStart,
    StartRequest, Terminal, process_spec::Command as Wire,
};

use crate::{Child, Error, Output, Started, Vm};

/// How much output [`Command::output`] holds unless told otherwise.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// What becomes of a program whose client is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It gets SIGHUP, and what is left of its group after a while is killed.
    #[default]
    HangUp,
    /// It is killed at once, with its group.
    Kill,
    /// It lives on, and can be listed and signalled.
    Keep,
}

/// A program to run as the user of the [`Vm`] that made it.
///
/// The environment, directory, umask and signals that it starts with are those of guestline.v1's Processes: nothing of the
/// agent's, and nothing of this process's.
#[derive(Clone, Debug)]
pub struct Command {
    vm: Vm,
    spec: ProcessSpec,
    on_disconnect: DisconnectPolicy,
    input: Bytes,
    output_limit: usize,
}

impl Command {
    fn new(vm: Vm, command: Wire) -> Self {
        let spec = ProcessSpec {
            command: Some(command),
            ..ProcessSpec::default()
        };
        Self {
            vm,
            spec,
            on_disconnect: DisconnectPolicy::Unspecified,
            input: Bytes::new(),
            output_limit: OUTPUT_LIMIT,
        }
    }

    pub(crate) fn program(vm: Vm, program: &OsStr) -> Self {
        let arguments = vec![bytes(program)];
        Self::new(vm, Wire::Argv(ArgumentVector { arguments }))
    }

    pub(crate) fn shell_line(vm: Vm, line: &OsStr) -> Self {
        Self::new(vm, Wire::ShellLine(bytes(line)))
    }

    pub(crate) fn login_shell(vm: Vm) -> Self {
        Self::new(vm, Wire::LoginShell(LoginShell {}))
    }

    /// Adds an argument. Shell lines have none: there it does nothing.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        if let Some(Wire::Argv(argv)) = &mut self.spec.command {
            argv.arguments.push(bytes(argument.as_ref()));
        }
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    /// Sets a variable.
    pub fn env(&mut self, name: impl Into<String>, value: impl AsRef<OsStr>) -> &mut Self {
        self.spec
            .environment
            .insert(name.into(), bytes(value.as_ref()));
        self
    }

    /// Leaves a variable out of the documented environment.
    pub fn env_remove(&mut self, name: impl Into<String>) -> &mut Self {
        let name = name.into();
        self.spec.environment.remove(&name);
        self.spec.unset_environment.push(name);
        self
    }

    /// Where to start; the user's home otherwise.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.spec.directory = Some(bytes(directory.as_ref().as_os_str()));
        self
    }

    /// What [`Command::output`] gives the program to read; nothing otherwise.
    pub fn input(&mut self, input: impl Into<Bytes>) -> &mut Self {
        self.input = input.into();
        self.stdin(true)
    }

    /// Whether a spawned program's stdin is open for [`Child::input`]; it is /dev/null otherwise.
    pub fn stdin(&mut self, open: bool) -> &mut Self {
        self.spec.stdin = open;
        self
    }

    /// Sends stderr into stdout, in the order the guest's kernel saw.
    pub fn merge_stderr(&mut self, merge: bool) -> &mut Self {
        self.spec.merge_stderr = merge;
        self
    }

    /// Gives it a pseudo-terminal: `term` is the variable TERM, and everything arrives as stdout.
    pub fn terminal(&mut self, term: impl Into<String>, columns: u32, rows: u32) -> &mut Self {
        self.spec.terminal = Some(Terminal {
            term: term.into(),
            columns,
            rows,
        });
        self
    }

    /// After this time the guest ends the whole process group. Kept there, so that it holds when this host is gone.
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.spec.timeout = limit.try_into().ok();
        self
    }

    /// umask(2); 022 otherwise.
    pub fn umask(&mut self, umask: u32) -> &mut Self {
        self.spec.umask = Some(umask);
        self
    }

    /// How many bytes of memory the program and all that it starts may have; needs cgroup v2 in the guest.
    pub fn memory_limit(&mut self, bytes: u64) -> &mut Self {
        self.limits().memory = Some(bytes);
        self
    }

    /// How many processes and threads there may be of it at once; needs cgroup v2 in the guest.
    pub fn pids_limit(&mut self, pids: u32) -> &mut Self {
        self.limits().pids = Some(pids);
        self
    }

    /// How much processor time it may have, in thousandths of a core; needs cgroup v2 in the guest.
    pub fn cpu_limit(&mut self, millis: u32) -> &mut Self {
        self.limits().cpu_millis = Some(millis);
        self
    }

    fn limits(&mut self) -> &mut Limits {
        self.spec.limits.get_or_insert_default()
    }

    /// Reads the shell's login files before a shell line.
    pub fn login(&mut self, login: bool) -> &mut Self {
        self.spec.login = login;
        self
    }

    /// Runs the program in a login session of its own, which the guest's systemd opens, with the limits and the environment that
    /// its PAM gives. Needs systemd in the guest, and takes no limits.
    ///
    /// An older agent would run the program without one and not say so. So the first such program of a connection asks the agent
    /// before ([`System::info`](crate::System::info)), and is refused as [`ErrorReason::Unsupported`](crate::ErrorReason) where
    /// it does not know sessions.
    pub fn login_session(&mut self, session: bool) -> &mut Self {
        self.spec.login_session = session;
        self
    }

    /// Kills what is left of the process group and of the cgroup when the program ends; it lives on otherwise.
    pub fn kill_leftovers(&mut self, kill: bool) -> &mut Self {
        let policy = if kill {
            LeftoverPolicy::Kill
        } else {
            LeftoverPolicy::Unspecified
        };
        self.spec.leftovers = policy.into();
        self
    }

    /// What becomes of the program when its [`Child`] is dropped or the connection is lost.
    pub fn on_disconnect(&mut self, policy: OnDisconnect) -> &mut Self {
        self.on_disconnect = match policy {
            OnDisconnect::HangUp => DisconnectPolicy::Unspecified,
            OnDisconnect::Kill => DisconnectPolicy::Kill,
            OnDisconnect::Keep => DisconnectPolicy::Keep,
        };
        self
    }

    /// How many bytes [`Command::output`] may hold of both streams together; 64 MiB otherwise.
    pub fn output_limit(&mut self, bytes: usize) -> &mut Self {
        self.output_limit = bytes;
        self
    }

    /// Starts the program. That it cannot be started is an error here, whose operation names the step.
    ///
    /// Cancelled, it may have been started; it is then ended as if its client had vanished.
    pub async fn spawn(&self) -> Result<Child, Error> {
        self.check().await?;
        let start = RunStart {
            process: Some(self.spec.clone()),
            on_disconnect: self.on_disconnect.into(),
        };
        Child::begin(self.vm.clone(), start).await
    }

    /// Starts the program detached: it lives on without a client, and `ring_size` bytes of each of its outputs are kept
    /// for [`Processes::attach`](crate::Processes::attach); `None`: 1 MiB.
    ///
    /// Cancelled, it may have been started all the same.
    pub async fn start(&self, ring_size: Option<u64>) -> Result<Started, Error> {
        self.check().await?;
        let request = StartRequest {
            process: Some(self.spec.clone()),
            ring_size,
        };
        self.vm.processes().start(request).await
    }

    /// Whether the agent would do all of what is asked for.
    async fn check(&self) -> Result<(), Error> {
        if !self.spec.login_session {
            return Ok(());
        }
        let capabilities = self.vm.capabilities().await?;
        let has = |name: &str| capabilities.iter().any(|it| it == name);
        match (has("login_session"), has("systemd")) {
            (true, _) => Ok(()),
            (_, true) => Err(Error::lacking(
                "login_session",
                "this agent is older than login sessions: update it",
            )),
            _ => Err(Error::lacking(
                "login_session",
                "this guest does not run systemd, which opens login sessions",
            )),
        }
    }

    /// Names the program for people and for [`Processes::list`](crate::Processes::list); at most 128 bytes.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.spec.name = name.into();
        self
    }

    /// Labels the program; at most 16 labels of at most 128 bytes each.
    pub fn label(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.spec.labels.insert(name.into(), value.into());
        self
    }

    /// Runs the program to its end and collects what it wrote. Any exit is a success here; look at the status.
    pub async fn output(&self) -> Result<Output, Error> {
        let child = self.spawn().await?;
        child.finish(self.input.clone(), self.output_limit).await
    }
}

fn bytes(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

//! Programs that live on without a client, and what the guest knows of those it was asked to run.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{
        self, AttachRequest, AttachResponse, AttachStart, ListProcessesRequest, SignalRequest,
        StartRequest, attach_request, attach_response, output, processes_client::ProcessesClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Error, ExitStatus, Input, SignalTarget, Vm,
    channel::Channel,
    process::{QUEUE, send_signal, time},
};

/// The programs of a VM's user, as far as its worker started them. From [`Vm::processes`].
#[derive(Clone, Debug)]
pub struct Processes {
    vm: Vm,
}

/// A program that was started detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// For [`Processes::attach`] and [`Processes::signal`]; never used twice.
    pub process_id: u64,
    /// The guest's process id.
    pub pid: i32,
}

/// Where to go on in a program's output: offsets in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `None`: from the oldest byte that is kept.
    pub stdout: Option<u64>,
    /// The same of stderr.
    pub stderr: Option<u64>,
}

/// What an attached client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEvent {
    /// It wrote to stdout, or to its terminal.
    Stdout(Bytes),
    /// It wrote to stderr.
    Stderr(Bytes),
    /// So many bytes are no longer kept.
    Lost {
        /// Of stdout.
        stdout: u64,
        /// Of stderr.
        stderr: u64,
    },
    /// It ended. Always the last.
    Exited(ExitStatus),
}

/// What a running program does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessState {
    /// On a core, or ready to be.
    Running,
    /// Waits for something.
    Sleeping,
    /// Waits for a device or a file system, and takes no signal.
    Waiting,
    /// Stopped by a signal or a tracer.
    Stopped,
    /// Ended.
    Exited,
}

/// One program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Process {
    /// Names it, also in later connections.
    pub process_id: u64,
    /// The guest's process id.
    pub pid: i32,
    /// The Linux user it runs as.
    pub user: OsString,
    /// Its arguments, of long ones the first 4 KiB; less where much is listed.
    pub command: Vec<OsString>,
    /// The caller's name for it.
    pub name: String,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// By the guest's clock.
    pub started: Option<SystemTime>,
    /// What it does now.
    pub state: ProcessState,
    /// How it ended, of one that did.
    pub exit: Option<ExitStatus>,
    /// Whether it can be attached to.
    pub detached: bool,
    /// Bytes written so far.
    pub stdout_bytes: u64,
    /// Bytes written so far.
    pub stderr_bytes: u64,
    /// Processor time so far, user's and kernel's.
    pub cpu_time: Duration,
    /// Bytes of memory at the most.
    pub max_resident: u64,
}

impl Processes {
    pub(crate) fn new(vm: Vm) -> Self {
        Self { vm }
    }

    /// All that run, and those that ended in the last ten minutes; the oldest first.
    pub async fn list(&self) -> Result<Vec<Process>, Error> {
        let answer = self.client().list(ListProcessesRequest {}).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        answer
            .processes
            .into_iter()
            .map(Process::try_from)
            .collect()
    }

    /// Sends a Linux signal, by number, to a program by its `process_id`.
    pub async fn signal(
        &self,
        process_id: u64,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), Error> {
        let signal = Some(send_signal(signal, target));
        let request = SignalRequest { process_id, signal };
        let answer = self.client().signal(request).await;
        answer.map(drop).map_err(|status| self.vm.error(status))
    }

    /// Joins a detached program: its output from these offsets on, and its input.
    pub async fn attach(&self, process_id: u64, from: Offsets) -> Result<Attached, Error> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let start = AttachStart {
            process_id,
            stdout_offset: from.stdout,
            stderr_offset: from.stderr,
        };
        let message = Some(attach_request::Message::Start(start));
        // The queue is new and has room.
        let _ = requests.send(AttachRequest { message }).await;
        let answer = self.client().attach(ReceiverStream::new(queue)).await;
        let responses = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok(Attached {
            vm: self.vm.clone(),
            input: Input::attached(requests),
            responses,
            reached: from,
        })
    }

    pub(crate) async fn start(&self, request: StartRequest) -> Result<Started, Error> {
        let answer = self.client().start(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok(Started {
            process_id: answer.process_id,
            pid: answer.pid,
        })
    }

    fn client(&self) -> ProcessesClient<Channel> {
        ProcessesClient::new(self.vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }
}

/// A detached program that is listened to. Dropping it changes nothing for the program.
#[derive(Debug)]
pub struct Attached {
    vm: Vm,
    input: Input,
    responses: Streaming<AttachResponse>,
    reached: Offsets,
}

impl Attached {
    /// The way to its stdin, signals and terminal size, which other clients share.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Where the next byte of each output is: with these, [`Processes::attach`] goes on after a lost connection.
    pub fn reached(&self) -> Offsets {
        self.reached
    }

    /// What it does next. A connection that ends without [`AttachEvent::Exited`] is [`Error::Lost`]. Cancel-safe.
    pub async fn event(&mut self) -> Result<AttachEvent, Error> {
        let answer = self.responses.message().await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        match answer.ok_or(Error::Lost(None))?.message {
            Some(attach_response::Message::Output(output)) => {
                let end = |data: &Bytes| Some(output.offset.saturating_add(data.len() as u64));
                match output.output.and_then(|output| output.stream) {
                    Some(output::Stream::Stdout(data)) => {
                        self.reached.stdout = end(&data);
                        Ok(AttachEvent::Stdout(data))
                    }
                    Some(output::Stream::Stderr(data)) => {
                        self.reached.stderr = end(&data);
                        Ok(AttachEvent::Stderr(data))
                    }
                    None => Err(Error::Protocol(
                        "output of neither stdout nor stderr".into(),
                    )),
                }
            }
            Some(attach_response::Message::Lost(lost)) => Ok(AttachEvent::Lost {
                stdout: lost.stdout,
                stderr: lost.stderr,
            }),
            Some(attach_response::Message::Exited(exited)) => {
                Ok(AttachEvent::Exited(exited.try_into()?))
            }
            None => Err(Error::Protocol(
                "an attach answered something unknown".into(),
            )),
        }
    }
}

impl TryFrom<v1::Process> for Process {
    type Error = Error;

    fn try_from(wire: v1::Process) -> Result<Self, Error> {
        let state = match (&wire.exited, wire.state()) {
            (Some(_), _) | (None, v1::ProcessState::Exiting) => ProcessState::Exited,
            (None, v1::ProcessState::Running) => ProcessState::Running,
            (None, v1::ProcessState::Waiting) => ProcessState::Waiting,
            (None, v1::ProcessState::Stopped) => ProcessState::Stopped,
            (None, v1::ProcessState::Sleeping | v1::ProcessState::Unspecified) => {
                ProcessState::Sleeping
            }
        };
        let text = |bytes: Bytes| OsString::from_vec(bytes.into());
        let exit: Option<ExitStatus> = wire.exited.map(TryInto::try_into).transpose()?;
        let usage = wire.usage.unwrap_or_default();
        let (cpu_time, max_resident) = match &exit {
            Some(exit) => (exit.user_time + exit.system_time, exit.max_resident),
            None => (
                time(usage.user_time) + time(usage.system_time),
                usage.max_resident,
            ),
        };
        Ok(Self {
            process_id: wire.process_id,
            pid: wire.pid,
            user: text(wire.user),
            command: wire.command.into_iter().map(text).collect(),
            name: wire.name,
            labels: wire.labels.into_iter().collect(),
            started: wire.started.and_then(|started| started.try_into().ok()),
            state,
            exit,
            detached: wire.detached,
            stdout_bytes: wire.stdout_bytes,
            stderr_bytes: wire.stderr_bytes,
            cpu_time,
            max_resident,
        })
    }
}

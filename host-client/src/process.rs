//! A program that runs in the guest: its input, its output, its end.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use guestline_proto::{
    MAX_CHUNK_SIZE, MAX_MESSAGE_SIZE,
    v1::{
        self, CloseStdin, Resize, RunRequest, RunResponse, RunStart, SendSignal, exited, output,
        processes_client::ProcessesClient, run_request, run_response,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Error, Vm};

/// Requests on their way besides the HTTP/2 window: input waits in its writer, not here.
const QUEUE: usize = 4;

/// What a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to stdout, or to its terminal.
    Stdout(Bytes),
    /// It wrote to stderr.
    Stderr(Bytes),
    /// It ended. Always the last.
    Exited(ExitStatus),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitStatus {
    /// Its exit code, if it was not killed.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// It left a core dump.
    pub core_dumped: bool,
    /// It was ended because its timeout passed.
    pub timed_out: bool,
    /// The guest's OOM killer ended it or one of its children.
    pub out_of_memory: bool,
    /// Others still hold its output open.
    pub output_held: bool,
    /// From start to end.
    pub wall_time: Duration,
    /// In user mode.
    pub user_time: Duration,
    /// In the kernel.
    pub system_time: Duration,
    /// Bytes of memory at the most.
    pub max_resident: u64,
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "killed by signal {signal}"),
            (code, None) => write!(f, "exit code {}", code.unwrap_or_default()),
        }
    }
}

impl TryFrom<v1::Exited> for ExitStatus {
    type Error = Error;

    fn try_from(wire: v1::Exited) -> Result<Self, Error> {
        let (code, signal) = match wire.status {
            Some(exited::Status::Code(code)) => (Some(code), None),
            Some(exited::Status::Signal(signal)) => (None, Some(signal)),
            None => return Err(Error::Protocol("an exit without a status".into())),
        };
        let usage = wire.usage.unwrap_or_default();
        let time = |time: Option<prost_types::Duration>| {
            time.and_then(|time| time.try_into().ok())
                .unwrap_or_default()
        };
        Ok(Self {
            code,
            signal,
            core_dumped: wire.core_dumped,
            timed_out: wire.timed_out,
            out_of_memory: wire.out_of_memory,
            output_held: wire.output_held,
            wall_time: time(usage.wall_time),
            user_time: time(usage.user_time),
            system_time: time(usage.system_time),
            max_resident: usage.max_resident,
        })
    }
}

/// What a program wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignalTarget {
    /// The process group that the program leads.
    #[default]
    Group,
    /// The program alone.
    Leader,
    /// Everything in its cgroup, daemonised children too.
    All,
}

/// The way into a program. Cheap to clone, and usable while another task reads the events.
///
/// After the program ended, or its connection, everything here does nothing: the events tell.
#[derive(Clone, Debug)]
pub struct Input {
    requests: mpsc::Sender<RunRequest>,
}

impl Input {
    /// Gives bytes to its stdin or terminal; waits while the program does not read.
    pub async fn write(&self, data: impl Into<Bytes>) {
        let mut data = data.into();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK_SIZE));
            self.send(run_request::Message::Stdin(chunk)).await;
        }
    }

    /// Ends its stdin.
    pub async fn close(&self) {
        self.send(run_request::Message::CloseStdin(CloseStdin {}))
            .await;
    }

    /// Tells its terminal a new size.
    pub async fn resize(&self, columns: u32, rows: u32) {
        self.send(run_request::Message::Resize(Resize { columns, rows }))
            .await;
    }

    /// Sends a Linux signal, by number.
    pub async fn signal(&self, signal: i32, target: SignalTarget) {
        let target = match target {
            SignalTarget::Group => v1::SignalTarget::Unspecified,
            SignalTarget::Leader => v1::SignalTarget::Leader,
            SignalTarget::All => v1::SignalTarget::All,
        };
        let message = SendSignal {
            signal,
            target: target.into(),
        };
        self.send(run_request::Message::Signal(message)).await;
    }

    async fn send(&self, message: run_request::Message) {
        // Nobody there to take it means that the call ended, which the events tell.
        let _ = self
            .requests
            .send(RunRequest {
                message: Some(message),
            })
            .await;
    }
}

/// A running program. Dropping it ends the program, unless the command was told to keep it.
///
/// Events must be read: a program whose output nobody takes stands still, and so does a writer of its input.
#[derive(Debug)]
pub struct Child {
    vm: Vm,
    input: Input,
    responses: Streaming<RunResponse>,
    pid: i32,
    process_id: u64,
}

impl Child {
    pub(crate) async fn begin(vm: Vm, start: RunStart) -> Result<Self, Error> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let input = Input { requests };
        input.send(run_request::Message::Start(start)).await;
        let mut client =
            ProcessesClient::new(vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let answer = client.run(ReceiverStream::new(queue)).await;
        let mut responses = answer.map_err(|status| vm.error(status))?.into_inner();
        let first = responses
            .message()
            .await
            .map_err(|status| vm.error(status))?;
        match first.map(|response| response.message) {
            Some(Some(run_response::Message::Started(started))) => {
                let (pid, process_id) = (started.pid, started.process_id);
                Ok(Self {
                    vm,
                    input,
                    responses,
                    pid,
                    process_id,
                })
            }
            Some(_) => Err(Error::Protocol(
                "a run that does not begin with started".into(),
            )),
            None => Err(Error::Lost(None)),
        }
    }

    /// The guest's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The worker's own name of the process, never used twice.
    pub fn process_id(&self) -> u64 {
        self.process_id
    }

    /// The way to its stdin, signals and terminal size.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// SIGKILL to its process group.
    pub async fn kill(&self) {
        self.input.signal(9, SignalTarget::Group).await;
    }

    /// What it does next. A connection that ends without [`Event::Exited`] is [`Error::Lost`]. Cancel-safe.
    pub async fn event(&mut self) -> Result<Event, Error> {
        let answer = self
            .responses
            .message()
            .await
            .map_err(|status| self.vm.error(status))?;
        match answer.ok_or(Error::Lost(None))?.message {
            Some(run_response::Message::Output(output)) => match output.stream {
                Some(output::Stream::Stdout(data)) => Ok(Event::Stdout(data)),
                Some(output::Stream::Stderr(data)) => Ok(Event::Stderr(data)),
                None => Err(Error::Protocol(
                    "output of neither stdout nor stderr".into(),
                )),
            },
            Some(run_response::Message::Exited(exited)) => Ok(Event::Exited(exited.try_into()?)),
            _ => Err(Error::Protocol("a run answered something unknown".into())),
        }
    }

    /// Waits for its end, and drops what it writes meanwhile. Does not close its stdin.
    pub async fn wait(mut self) -> Result<ExitStatus, Error> {
        loop {
            if let Event::Exited(status) = self.event().await? {
                return Ok(status);
            }
        }
    }

    /// Closes its stdin, waits for its end, and collects at most `limit` bytes of output; more is an error.
    pub async fn wait_with_output(self, limit: usize) -> Result<Output, Error> {
        self.finish(Bytes::new(), limit).await
    }

    pub(crate) async fn finish(mut self, stdin: Bytes, limit: usize) -> Result<Output, Error> {
        let input = self.input();
        let feed = async {
            input.write(stdin).await;
            input.close().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            output = self.collect(limit) => output,
            () = feed => unreachable!("feeding never ends"),
        }
    }

    async fn collect(&mut self, limit: usize) -> Result<Output, Error> {
        let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
        loop {
            match self.event().await? {
                Event::Stdout(data) => stdout.extend_from_slice(&data),
                Event::Stderr(data) => stderr.extend_from_slice(&data),
                Event::Exited(status) => {
                    return Ok(Output {
                        status,
                        stdout: stdout.into(),
                        stderr: stderr.into(),
                    });
                }
            }
            if stdout.len() + stderr.len() > limit {
                return Err(Error::OutputTooLarge { limit });
            }
        }
    }
}

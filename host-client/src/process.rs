//! A program that runs in the guest: its input, its output, its end.

mod requests;

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use guestline_proto::{
    MAX_CHUNK_SIZE, MAX_MESSAGE_SIZE,
    v1::{
        self, AttachRequest, CloseStdin, DisconnectPolicy, Resize, RunRequest, RunResponse,
        RunStart, SendSignal, attach_request, exited, output, processes_client::ProcessesClient,
        run_request, run_response,
    },
};
use tokio::{runtime::Handle, sync::mpsc, time};
use tonic::Streaming;

use self::requests::{GiveUp, Requests as Sent};
use crate::{Error, Vm};

/// Requests on their way besides the HTTP/2 window: input waits in its writer, not here.
pub(crate) const QUEUE: usize = 4;

/// As the agent ends the program of a client that vanished: a hang-up, and for who does not heed it, this long after, the kill.
const GRACE: Duration = Duration::from_secs(2);
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

/// A guest that does not answer is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

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
    /// How many of its cgroup outlived the SIGKILL of [`Command::kill_leftovers`](crate::Command::kill_leftovers).
    pub survivors: u32,
    /// What all in its cgroup used, where the guest has cgroup v2.
    pub group_usage: Option<GroupUsage>,
    /// From start to end.
    pub wall_time: Duration,
    /// In user mode.
    pub user_time: Duration,
    /// In the kernel.
    pub system_time: Duration,
    /// Bytes of memory at the most.
    pub max_resident: u64,
}

/// What a program and all that it started used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupUsage {
    /// In user mode.
    pub user_time: Duration,
    /// In the kernel.
    pub system_time: Duration,
    /// Bytes of memory at the most, with page cache; 0 where the guest's kernel does not tell.
    pub memory_peak: u64,
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
        Ok(Self {
            code,
            signal,
            core_dumped: wire.core_dumped,
            timed_out: wire.timed_out,
            out_of_memory: wire.out_of_memory,
            output_held: wire.output_held,
            survivors: wire.survivors,
            group_usage: wire.group_usage.map(|usage| GroupUsage {
                user_time: time(usage.user_time),
                system_time: time(usage.system_time),
                memory_peak: usage.memory_peak,
            }),
            wall_time: time(usage.wall_time),
            user_time: time(usage.user_time),
            system_time: time(usage.system_time),
            max_resident: usage.max_resident,
        })
    }
}

pub(crate) fn time(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| time.try_into().ok())
        .unwrap_or_default()
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
pub struct Input(Requests);

#[derive(Clone, Debug)]
enum Requests {
    Run(mpsc::Sender<RunRequest>),
    Attach(mpsc::Sender<AttachRequest>),
}

/// What either of them can be told.
enum Word {
    Stdin(Bytes),
    CloseStdin,
    Resize(Resize),
    Signal(SendSignal),
}

impl Input {
    pub(crate) fn attached(requests: mpsc::Sender<AttachRequest>) -> Self {
        Self(Requests::Attach(requests))
    }

    /// Gives bytes to its stdin or terminal; waits while the program does not read.
    pub async fn write(&self, data: impl Into<Bytes>) {
        let mut data = data.into();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK_SIZE));
            self.send(Word::Stdin(chunk)).await;
        }
    }

    /// Ends its stdin.
    pub async fn close(&self) {
        self.send(Word::CloseStdin).await;
    }

    /// Tells its terminal a new size.
    pub async fn resize(&self, columns: u32, rows: u32) {
        self.send(Word::Resize(Resize { columns, rows })).await;
    }

    /// Sends a Linux signal, by number.
    pub async fn signal(&self, signal: i32, target: SignalTarget) {
        self.send(Word::Signal(send_signal(signal, target))).await;
    }

    async fn send(&self, word: Word) {
        // Nobody there to take it means that the call ended, which the events tell.
        match &self.0 {
            Requests::Run(requests) => {
                use run_request::Message;
                let message = Some(match word {
                    Word::Stdin(chunk) => Message::Stdin(chunk),
                    Word::CloseStdin => Message::CloseStdin(CloseStdin {}),
                    Word::Resize(resize) => Message::Resize(resize),
                    Word::Signal(signal) => Message::Signal(signal),
                });
                let _ = requests.send(RunRequest { message }).await;
            }
            Requests::Attach(requests) => {
                use attach_request::Message;
                let message = Some(match word {
                    Word::Stdin(chunk) => Message::Stdin(chunk),
                    Word::CloseStdin => Message::CloseStdin(CloseStdin {}),
                    Word::Resize(resize) => Message::Resize(resize),
                    Word::Signal(signal) => Message::Signal(signal),
                });
                let _ = requests.send(AttachRequest { message }).await;
            }
        }
    }
}

pub(crate) fn send_signal(signal: i32, target: SignalTarget) -> SendSignal {
    let target = match target {
        SignalTarget::Group => v1::SignalTarget::Unspecified,
        SignalTarget::Leader => v1::SignalTarget::Leader,
        SignalTarget::All => v1::SignalTarget::All,
    };
    SendSignal {
        signal,
        target: target.into(),
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
    give_up: GiveUp,
    /// Nobody has to end it: it has ended, or is to live on.
    is_left_alone: bool,
}

impl Child {
    pub(crate) async fn begin(vm: Vm, start: RunStart) -> Result<Self, Error> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (queue, give_up) = Sent::new(queue);
        let is_left_alone = start.on_disconnect() == DisconnectPolicy::Keep;
        let message = Some(run_request::Message::Start(start));
        // The queue is new and has room.
        let _ = requests.send(RunRequest { message }).await;
        let input = Input(Requests::Run(requests));
        let mut client =
            ProcessesClient::new(vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let answer = client.run(queue).await;
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
                    give_up,
                    is_left_alone,
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
        let answer = self.responses.message().await;
        if !matches!(&answer, Ok(Some(answer)) if is_output(answer)) {
            // The last, whatever it is.
            self.is_left_alone = true;
        }
        let answer = answer.map_err(|status| self.vm.error(status))?;
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

fn is_output(answer: &RunResponse) -> bool {
    matches!(answer.message, Some(run_response::Message::Output(_)))
}

impl Drop for Child {
    /// The end of the call tells the guest, unless the call cannot end: then a call of its own does.
    fn drop(&mut self) {
        let is_told = self.give_up.give_up();
        if is_told || self.is_left_alone {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(end(self.vm.clone(), self.process_id));
        }
    }
}

async fn end(vm: Vm, process_id: u64) {
    let processes = vm.processes();
    let signal = |signal, target| {
        let told = processes.signal(process_id, signal, target);
        time::timeout(ANSWER_LIMIT, told)
    };
    let _ = signal(SIGHUP, SignalTarget::Group).await;
    time::sleep(GRACE).await;
    // What it left behind lives on, where it has ended itself.
    if let Ok(Ok(())) = signal(SIGKILL, SignalTarget::Leader).await {
        let _ = signal(SIGKILL, SignalTarget::Group).await;
        // A guest without cgroups has no such thing.
        let _ = signal(SIGKILL, SignalTarget::All).await;
    }
}

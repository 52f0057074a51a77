//! One program from its start to its end, owned by one task, whose client is only a channel: when the client vanishes,
//! the task ends the program as was asked and waits for it all the same.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    client::{Client, EVENT_QUEUE, Event, Exit, INPUT_QUEUE, Input, Status, Usage},
    ending::{Delivery, Ending, at},
    input::Stdin,
    launch::OurEnds,
    leader::SignalNumber,
    output::{Output, Stream},
    record::{ProcessId, Record},
    spec::{Leftovers, OnDisconnect, ProcessSpec},
};
use crate::sys::{
    child::{open_pidfd, peek_exit},
    readiness, terminal,
};

/// Between the polite signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the owning task.
pub(super) struct Running {
    record: Arc<Record>,
    since: Instant,
    pidfd: AsyncFd<OwnedFd>,
    stdin: Stdin,
    terminal: Option<OwnedFd>,
    outputs: Vec<Delivery>,
    exited: watch::Sender<bool>,
    client: mpsc::Sender<Event>,
    /// `None`: the client says no more.
    input: Option<mpsc::Receiver<Input>>,
    connected: bool,
    on_disconnect: OnDisconnect,
    leftovers: Leftovers,
    timeout: Option<Instant>,
    timed_out: bool,
    kill_at: Option<Instant>,
}

/// What happened next.
enum Turn {
    Exited(io::Result<(Status, Usage)>),
    TimedOut,
    GracePassed,
    Vanished,
    Said(Option<Input>),
    Flushed,
}

impl Running {
    /// Takes charge of the child. After an error, dropping the record's leader ends it.
    pub(super) fn new(
        record: Arc<Record>,
        ends: OurEnds,
        spec: &ProcessSpec,
        on_disconnect: OnDisconnect,
    ) -> io::Result<(Self, Client)> {
        let since = Instant::now();
        let pidfd = open_pidfd(Pid::from_raw(record.leader.pid()))?;
        let (client, events) = mpsc::channel(EVENT_QUEUE);
        let (sender, input) = mpsc::channel(INPUT_QUEUE);
        let (exited, exit) = watch::channel(false);
        let has_terminal = ends.terminal.is_some();
        let sources = [
            (Some(ends.stdout), Stream::Stdout, &record.stdout_bytes),
            (ends.stderr, Stream::Stderr, &record.stderr_bytes),
        ];
        let mut outputs = Vec::new();
        for (source, stream, count) in sources {
            let Some(source) = source else { continue };
            outputs.push(Output {
                source: readiness::watch(source, Interest::READABLE)?,
                stream,
                terminal: has_terminal,
                client: client.clone(),
                count: Arc::clone(count),
                exited: exit.clone(),
            });
        }
        let running = Self {
            since,
            pidfd: readiness::watch(pidfd, Interest::READABLE)?,
            stdin: Stdin::new(ends.stdin, has_terminal)?,
            terminal: ends.terminal,
            outputs: outputs
                .into_iter()
                .map(|output| tokio::spawn(output.deliver()))
                .collect(),
            exited,
            client,
            input: Some(input),
            connected: true,
            on_disconnect,
            leftovers: spec.leftovers,
            // A time that the clock cannot express never comes.
            timeout: spec.timeout.and_then(|timeout| since.checked_add(timeout)),
            timed_out: false,
            kill_at: None,
            record,
        };
        let client = Client {
            id: running.record.id,
            pid: running.record.leader.pid(),
            events,
            input: sender,
        };
        Ok((running, client))
    }

    /// Until nothing is left of the program that is ours to look after.
    pub(super) async fn own(mut self) -> ProcessId {
        let id = self.record.id;
        let exit = self.until_exit().await;
        let wall_time = self.since.elapsed();
        if self.leftovers == Leftovers::Kill {
            self.record.leader.signal_group(SignalNumber::KILL);
        }
        let timed_out = self.timed_out;
        let exit = exit.ok().map(|(status, usage)| Exit {
            status,
            timed_out,
            usage,
            wall_time,
            output_held: false,
        });
        self.into_ending().end(exit).await;
        id
    }

    /// Closes all that only a living leader needs: its stdin, the terminal's other copies, the client's input.
    fn into_ending(self) -> Ending {
        self.exited.send_replace(true);
        Ending {
            record: self.record,
            outputs: self.outputs,
            client: self.client,
            kill_at: self.kill_at,
            keep_leftovers: self.leftovers == Leftovers::Keep,
        }
    }

    async fn until_exit(&mut self) -> io::Result<(Status, Usage)> {
        loop {
            match self.next().await {
                Turn::Exited(exit) => return exit,
                Turn::TimedOut => {
                    self.timeout = None;
                    self.timed_out = true;
                    self.end_group(SignalNumber::TERMINATE);
                }
                Turn::GracePassed => {
                    self.kill_at = None;
                    self.record.leader.signal_group(SignalNumber::KILL);
                }
                Turn::Vanished => self.vanished(),
                Turn::Said(None) => self.input = None,
                Turn::Said(Some(input)) => self.take(input),
                Turn::Flushed => {}
            }
        }
    }

    /// Cancel-safe, as each of its branches is.
    async fn next(&mut self) -> Turn {
        let pid = Pid::from_raw(self.record.leader.pid());
        let exited = self.pidfd.async_io(Interest::READABLE, |_| {
            peek_exit(pid)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        let listening = self.stdin.has_room();
        let pending = self.stdin.is_pending();
        tokio::select! {
            biased;
            exit = exited => Turn::Exited(exit),
            () = at(self.kill_at) => Turn::GracePassed,
            () = at(self.timeout) => Turn::TimedOut,
            () = self.client.closed(), if self.connected => Turn::Vanished,
            input = said(&mut self.input), if listening => Turn::Said(input),
            () = self.stdin.flush(), if pending => Turn::Flushed,
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Stdin(chunk) => self.stdin.push(chunk),
            Input::CloseStdin => self.stdin.close(),
            Input::Resize(size) => {
                if let Some(terminal) = &self.terminal
                    && let Err(error) = terminal::resize(terminal.as_fd(), size)
                {
                    tracing::debug!(%error, "the terminal was not resized");
                }
            }
            Input::Signal(signal, target) => {
                // It may be ending just now, which its exit will tell.
                if let Err(error) = self.record.leader.signal(signal, target) {
                    tracing::debug!(%error, "the program took no signal");
                }
            }
        }
    }

    fn vanished(&mut self) {
        self.connected = false;
        self.input = None;
        self.stdin.abandon();
        match self.on_disconnect {
            OnDisconnect::Keep => return,
            OnDisconnect::HangUp => self.end_group(SignalNumber::HANG_UP),
            OnDisconnect::Kill => self.record.leader.signal_group(SignalNumber::KILL),
        }
        if self.terminal.take().is_some() {
            // Closing the master hangs up: the foreground job, which has a group of its own, hears it too.
            self.outputs.drain(..).for_each(|output| output.abort());
        }
    }

    fn end_group(&mut self, signal: SignalNumber) {
        self.record.leader.signal_group(signal);
        self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
    }
}

async fn said(input: &mut Option<mpsc::Receiver<Input>>) -> Option<Input> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

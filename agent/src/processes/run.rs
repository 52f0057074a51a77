//! One program from its start to its end, owned by one task, whose client is only a channel: when the client vanishes,
//! the task ends the program as was asked and waits for it all the same.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::Interest,
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    client::{Exit, Status, Usage},
    controls::Feed,
    ending::{Delivery, Ending, at},
    input::Stdin,
    launch::OurEnds,
    leader::{ExitWatch, SignalNumber},
    output::{Output, Stream},
    record::{ProcessId, Record, lock},
    sink::Sink,
    spec::{Leftovers, OnDisconnect, ProcessSpec},
};
use crate::{switches, sys::readiness};

/// Between the polite signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the owning task.
pub(super) struct Running {
    record: Arc<Record>,
    since: Instant,
    exit: ExitWatch,
    stdin: Stdin,
    outputs: Vec<Delivery>,
    exited: watch::Sender<bool>,
    sink: Sink,
    /// What clients write. `None`: no more of it is wanted.
    feed: Option<mpsc::Receiver<Feed>>,
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
    Fed(Option<Feed>),
    Flushed,
}

impl Running {
    /// Takes charge of the child. After an error, dropping the record's leader ends it.
    pub(super) fn new(
        record: Arc<Record>,
        ends: OurEnds,
        spec: &ProcessSpec,
        on_disconnect: OnDisconnect,
        sink: Sink,
        feed: mpsc::Receiver<Feed>,
    ) -> io::Result<Self> {
        let since = Instant::now();
        let exit_watch = record.leader.watch_exit()?;
        let (exited, exit) = watch::channel(false);
        let has_terminal = spec.terminal.is_some();
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
                sink: sink.clone(),
                count: Arc::clone(count),
                exited: exit.clone(),
            });
        }
        Ok(Self {
            since,
            exit: exit_watch,
            stdin: Stdin::new(ends.stdin, has_terminal)?,
            outputs: outputs
                .into_iter()
                .map(|output| tokio::spawn(output.deliver()))
                .collect(),
            exited,
            sink,
            feed: Some(feed),
            connected: true,
            on_disconnect,
            leftovers: spec.leftovers,
            // A time that the clock cannot express never comes.
            timeout: spec.timeout.and_then(|timeout| since.checked_add(timeout)),
            timed_out: false,
            kill_at: None,
            record,
        })
    }

    /// Until nothing is left of the program that is ours to look after.
    pub(super) async fn own(mut self) -> ProcessId {
        let id = self.record.id;
        let exit = self.until_exit().await;
        switches::point("run: exited");
        let wall_time = self.since.elapsed();
        if exit.is_err() {
            // Nobody can tell how it goes on, where an usher was ended: it does not.
            self.record.kill();
        } else if self.leftovers == Leftovers::Kill {
            self.record.kill_leftovers();
        }
        let timed_out = self.timed_out;
        let exit = exit.ok().map(|(status, usage)| Exit {
            status,
            timed_out,
            usage,
            wall_time,
            output_held: false,
            group: self.record.group().map(|group| group.usage()),
            survivors: 0,
        });
        self.into_ending().end(exit).await;
        id
    }

    /// Closes all that only a living leader needs: its stdin, the terminal's other copies, the client's input.
    fn into_ending(self) -> Ending {
        self.exited.send_replace(true);
        *lock(&self.record.terminal) = None;
        Ending {
            record: self.record,
            outputs: self.outputs,
            sink: self.sink,
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
                    self.record.kill();
                }
                Turn::Vanished => self.vanished(),
                Turn::Fed(None) => self.feed = None,
                Turn::Fed(Some(Feed::Chunk(chunk))) => self.stdin.push(chunk),
                Turn::Fed(Some(Feed::End)) => self.stdin.close(),
                Turn::Flushed => {}
            }
        }
    }

    /// Cancel-safe, as each of its branches is.
    async fn next(&mut self) -> Turn {
        let listening = self.stdin.has_room();
        let pending = self.stdin.is_pending();
        tokio::select! {
            biased;
            exit = self.exit.exited() => Turn::Exited(exit),
            () = at(self.kill_at) => Turn::GracePassed,
            () = at(self.timeout) => Turn::TimedOut,
            () = self.sink.vanished(), if self.connected => Turn::Vanished,
            feed = fed(&mut self.feed), if listening => Turn::Fed(feed),
            () = self.stdin.flush(), if pending => Turn::Flushed,
        }
    }

    fn vanished(&mut self) {
        self.connected = false;
        self.feed = None;
        self.stdin.abandon();
        match self.on_disconnect {
            OnDisconnect::Keep => return,
            OnDisconnect::HangUp => self.end_group(SignalNumber::HANG_UP),
            OnDisconnect::Kill => self.record.kill(),
        }
        if lock(&self.record.terminal).take().is_some() {
            // Closing the master hangs up: the foreground job, which has a group of its own, hears it too.
            self.outputs.drain(..).for_each(|output| output.abort());
        }
    }

    fn end_group(&mut self, signal: SignalNumber) {
        // Only a group that is gone could refuse.
        let _ = self.record.leader.signal_group(signal);
        self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
    }
}

async fn fed(feed: &mut Option<mpsc::Receiver<Feed>>) -> Option<Feed> {
    match feed {
        Some(feed) => feed.recv().await,
        None => std::future::pending().await,
    }
}

//! Real children of the test's own process. Whatever waits does so for an event, under one deadline.

mod detached;
mod ending;
mod starting;
mod streams;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use nix::{errno::Errno, libc, unistd::Pid};
use tokio::time::{Instant, timeout};

use super::{
    Client, Command, Event, Exit, ExitStatus, Input, Leftovers, Limits, OnDisconnect,
    ProcessRegistry, ProcessSpec, RunError, SignalError, SignalNumber, Stream, Target,
    TerminalSpec, WindowSize,
};
use crate::{
    sys::child::{kill, peek_exit},
    system::accounts::Account,
};

const DEADLINE: Duration = Duration::from_secs(60);

fn account() -> Arc<Account> {
    Arc::new(Account {
        name: "alice".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
        home: "/tmp".into(),
        shell: "/bin/sh".into(),
    })
}

fn spec(command: Command) -> ProcessSpec {
    ProcessSpec {
        command,
        environment: BTreeMap::new(),
        unset_environment: Vec::new(),
        directory: None,
        terminal: None,
        stdin: false,
        merge_stderr: false,
        timeout: None,
        umask: 0o022,
        leftovers: Leftovers::Keep,
        name: String::new(),
        labels: BTreeMap::new(),
        limits: Limits::default(),
        login_session: false,
    }
}

fn argv(arguments: &[&str]) -> ProcessSpec {
    spec(Command::Arguments(
        arguments.iter().map(|&argument| argument.into()).collect(),
    ))
}

fn line(line: &str) -> ProcessSpec {
    let line = line.into();
    spec(Command::ShellLine { line, login: false })
}

fn in_terminal(mut spec: ProcessSpec) -> ProcessSpec {
    let size = WindowSize {
        columns: 100,
        rows: 40,
    };
    let term = b"dumb".to_vec();
    spec.terminal = Some(TerminalSpec { term, size });
    spec
}

async fn begin(registry: &ProcessRegistry, spec: ProcessSpec) -> Client {
    let running = registry.run(account(), spec, OnDisconnect::HangUp);
    running.await.expect("the program starts")
}

async fn refused(spec: ProcessSpec) -> (&'static str, Errno, Vec<u8>) {
    let registry = ProcessRegistry::default();
    match registry.run(account(), spec, OnDisconnect::HangUp).await {
        Err(RunError::Start {
            operation,
            subject,
            source,
        }) => (operation, source, subject),
        other => panic!("{other:?}"),
    }
}

#[derive(Debug)]
struct Finished {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Exit,
}

impl Finished {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Reads all, as a client does that has nothing to say.
async fn finish(mut client: Client) -> Finished {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async {
        loop {
            match client.events.recv().await.expect("`Exited` comes last") {
                Event::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
                Event::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
                Event::Exited(exit) => break exit,
            }
        }
    };
    let exit = timeout(DEADLINE, read).await.expect("it ends in time");
    assert!(client.events.recv().await.is_none());
    Finished {
        stdout,
        stderr,
        exit,
    }
}

async fn output(spec: ProcessSpec) -> Finished {
    finish(begin(&ProcessRegistry::default(), spec).await).await
}

/// Reads on until the output so far holds the text.
async fn read_until(client: &mut Client, wanted: &str) -> String {
    let mut read = String::new();
    while !read.contains(wanted) {
        let event = timeout(DEADLINE, client.events.recv()).await;
        match event.unwrap_or_else(|_| panic!("only {read:?}")) {
            Some(Event::Output(_, bytes)) => read += std::str::from_utf8(&bytes).unwrap(),
            other => panic!("{other:?} after {read:?}"),
        }
    }
    read
}

async fn all_gone(registry: &ProcessRegistry) {
    let mut live = registry.watch_busy();
    let none = timeout(DEADLINE, live.wait_for(|live| *live == 0));
    none.await.expect("nothing lives on").unwrap();
}

/// Whether anybody in the group runs. A zombie that waits for init does not.
fn group_runs(group: i32) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| {
        // One that ends meanwhile is none.
        std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()
    });
    let group = group.to_string();
    stats.into_iter().any(|stat| {
        // pid (name) state ppid pgrp …, where the name may hold anything.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let mut fields = fields.split(' ');
        let state = fields.next();
        fields.nth(1) == Some(&group) && state != Some("Z")
    })
}

/// SIGKILL is not waited for by its sender.
async fn group_ends(group: i32) {
    let since = Instant::now();
    while group_runs(group) {
        assert!(since.elapsed() < DEADLINE, "group {group} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

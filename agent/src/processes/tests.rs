//! Real children of the test's own process. Whatever waits does so for an event, under one deadline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use nix::{errno::Errno, libc, unistd::Pid};
use tokio::time::{Instant, timeout};

use super::{
    Client, Command, Event, Exit, ExitStatus, Input, Leftovers, OnDisconnect, ProcessRegistry,
    ProcessSpec, RunError, SignalNumber, Stream, Target, TerminalSpec, WindowSize,
};
use crate::{
    sys::child::{kill, peek_exit},
    system::accounts::Account,
};

const DEADLINE: Duration = Duration::from_secs(30);

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
    let mut live = registry.watch_live();
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

#[tokio::test]
async fn an_exit_code_is_told_exactly() {
    for code in [0, 1, 127, 255] {
        let finished = output(line(&format!("exit {code}"))).await;
        assert_eq!(finished.exit.status, ExitStatus::Code(code));
        assert!(!finished.exit.timed_out && !finished.exit.output_held);
    }
}

#[tokio::test]
async fn the_signal_that_killed_it_is_told() {
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGPIPE, 64] {
        let finished = output(line(&format!("ulimit -c 0; kill -{signal} $$"))).await;
        let ExitStatus::Signal { number, .. } = finished.exit.status else {
            panic!("{finished:?}");
        };
        assert_eq!(number, signal);
    }
}

#[tokio::test]
async fn all_output_comes_before_the_exit() {
    let finished = output(argv(&["head", "-c", "10000000", "/dev/zero"])).await;
    assert_eq!(finished.stdout.len(), 10_000_000);
    assert_eq!(finished.exit.status, ExitStatus::Code(0));
    assert!(finished.exit.usage.max_resident > 0 && finished.exit.wall_time > Duration::ZERO);
}

#[tokio::test]
async fn stdout_and_stderr_are_apart_unless_merged() {
    let both = "echo one; echo two >&2; echo three";
    let apart = output(line(both)).await;
    assert_eq!(
        (apart.text(), &apart.stderr[..]),
        ("one\nthree\n", &b"two\n"[..])
    );
    let mut merged = line(both);
    merged.merge_stderr = true;
    let merged = output(merged).await;
    assert_eq!(
        (merged.text(), merged.stderr.len()),
        ("one\ntwo\nthree\n", 0)
    );
}

#[tokio::test]
async fn a_background_child_holds_no_exit_back_and_counts_as_live() {
    let registry = ProcessRegistry::default();
    // It writes after the exit: a closed pipe would kill it, and nothing would come out of the file.
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "(read go < {0}; echo more; echo alive > {0}; exec sleep 1000) & echo hi",
        gate.display()
    );
    let client = begin(&registry, line(&script)).await;
    let (pid, input) = (client.pid, client.input.clone());
    let finished = finish(client).await;
    assert_eq!(finished.text(), "hi\n");
    assert_eq!(finished.exit.status, ExitStatus::Code(0));
    assert!(finished.exit.output_held);
    timeout(DEADLINE, input.closed())
        .await
        .expect("an ended program hears nothing");
    assert_eq!(registry.live(), 1);
    let answer = tokio::task::spawn_blocking(move || {
        std::fs::write(&gate, "go\n").unwrap();
        std::fs::read_to_string(&gate).unwrap()
    });
    let answer = timeout(DEADLINE, answer).await.expect("it met no SIGPIPE");
    assert_eq!(answer.unwrap(), "alive\n");
    kill(-pid, libc::SIGKILL).unwrap();
    all_gone(&registry).await;
}

#[tokio::test]
async fn leftovers_are_killed_where_asked() {
    let registry = ProcessRegistry::default();
    let mut spec = line("sleep 1000 & echo hi");
    spec.leftovers = Leftovers::Kill;
    let finished = finish(begin(&registry, spec).await).await;
    assert_eq!(finished.text(), "hi\n");
    all_gone(&registry).await;
}

#[tokio::test]
async fn stdin_reaches_the_program_and_ends_it() {
    let mut spec = argv(&["cat"]);
    spec.stdin = true;
    let client = begin(&ProcessRegistry::default(), spec).await;
    let input = client.input.clone();
    let sent = vec![b'x'; 3_000_000];
    let chunk = Bytes::from(sent.clone());
    tokio::spawn(async move {
        input.send(Input::Stdin(chunk)).await.unwrap();
        input.send(Input::CloseStdin).await.unwrap();
    });
    let finished = finish(client).await;
    assert!(finished.stdout == sent);
    assert_eq!(finished.exit.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_signal_passes_input_that_nobody_reads() {
    let mut spec = argv(&["sleep", "1000"]);
    spec.stdin = true;
    let client = begin(&ProcessRegistry::default(), spec).await;
    let chunk = Bytes::from(vec![0; 1_000_000]);
    client.input.send(Input::Stdin(chunk)).await.unwrap();
    let signal = Input::Signal(SignalNumber::TERMINATE, Target::Leader);
    client.input.send(signal).await.unwrap();
    let status = finish(client).await.exit.status;
    assert!(matches!(status, ExitStatus::Signal { number: 15, .. }));
}

#[tokio::test]
async fn input_for_a_program_that_closed_its_stdin_is_dropped() {
    let mut spec = line("exec <&-; echo closed; read x < /dev/null; exec sleep 1000");
    spec.stdin = true;
    let mut client = begin(&ProcessRegistry::default(), spec).await;
    read_until(&mut client, "closed").await;
    for _ in 0..10 {
        let chunk = Input::Stdin(Bytes::from(vec![0; 1_000_000]));
        timeout(DEADLINE, client.input.send(chunk))
            .await
            .expect("it is taken")
            .unwrap();
    }
    let signal = Input::Signal(SignalNumber::KILL, Target::Group);
    client.input.send(signal).await.unwrap();
    finish(client).await;
}

#[tokio::test]
async fn without_stdin_it_reads_the_null_device() {
    assert_eq!(
        output(argv(&["readlink", "/proc/self/fd/0"])).await.text(),
        "/dev/null\n"
    );
}

#[tokio::test]
async fn a_terminal_controls_the_session_and_is_resized() {
    let script = "trap 'stty size; exit 3' WINCH; tty; stty size; ps -o pid= -o sid= -o tpgid= -p $$; \
                  echo $TERM ready; while :; do read x; done";
    let mut client = begin(&ProcessRegistry::default(), in_terminal(line(script))).await;
    let text = read_until(&mut client, "ready").await;
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
    assert!(
        text.contains("40 100\r\n") && text.contains("dumb ready"),
        "{text:?}"
    );
    let pid = client.pid.to_string();
    let ours = text.split_whitespace().filter(|&word| word == pid);
    assert_eq!(
        ours.count(),
        3,
        "leads its session and the terminal's foreground: {text:?}"
    );
    let size = WindowSize {
        columns: 7,
        rows: 5,
    };
    client.input.send(Input::Resize(size)).await.unwrap();
    let finished = finish(client).await;
    assert!(finished.text().contains("5 7\r\n"), "{finished:?}");
    assert_eq!(finished.exit.status, ExitStatus::Code(3));
}

#[tokio::test]
async fn closing_a_terminals_input_is_an_end_of_file() {
    let client = begin(&ProcessRegistry::default(), in_terminal(argv(&["cat"]))).await;
    client
        .input
        .send(Input::Stdin(Bytes::from_static(b"hi\n")))
        .await
        .unwrap();
    client.input.send(Input::CloseStdin).await.unwrap();
    let finished = finish(client).await;
    assert_eq!(
        finished.text().matches("hi\r\n").count(),
        2,
        "echo and output"
    );
    assert_eq!(finished.exit.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_failed_start_names_the_step_and_leaves_nothing() {
    let missing = refused(argv(&["no-such-program"])).await;
    assert_eq!(
        missing,
        ("exec", Errno::ENOENT, b"no-such-program".to_vec())
    );
    let plain = refused(argv(&["/etc/passwd"])).await;
    assert_eq!(plain, ("exec", Errno::EACCES, b"/etc/passwd".to_vec()));
    let mut nowhere = argv(&["true"]);
    nowhere.directory = Some("no/such/folder".into());
    let nowhere = refused(nowhere).await;
    assert_eq!(
        nowhere,
        ("directory", Errno::ENOENT, b"/tmp/no/such/folder".to_vec())
    );
}

#[tokio::test]
async fn a_file_in_no_known_format_is_not_given_to_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "echo hi\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let (step, errno, _) = refused(argv(&[script.to_str().unwrap()])).await;
    assert_eq!((step, errno), ("exec", Errno::ENOEXEC));
}

#[tokio::test]
async fn a_program_that_is_being_written_is_busy() {
    let program = tempfile::NamedTempFile::new().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program.path(), mode).unwrap();
    let (step, errno, _) = refused(argv(&[program.path().to_str().unwrap()])).await;
    assert_eq!((step, errno), ("exec", Errno::ETXTBSY));
}

#[tokio::test]
async fn it_starts_at_home_else_at_the_root() {
    assert_eq!(output(argv(&["pwd"])).await.text(), "/tmp\n");
    let mut homeless = (*account()).clone();
    homeless.home = "/no/such/home".into();
    let running = ProcessRegistry::default();
    let client = running
        .run(homeless.into(), argv(&["pwd"]), OnDisconnect::Kill)
        .await;
    assert_eq!(finish(client.unwrap()).await.text(), "/\n");
}

#[tokio::test]
async fn the_environment_is_the_documented_one() {
    let mut spec = argv(&["env"]);
    spec.unset_environment = vec!["LANG".into()];
    spec.environment = BTreeMap::from([(b"EXTRA".to_vec(), b"a=b".to_vec())]);
    let finished = output(spec).await;
    let mut lines: Vec<_> = finished.text().lines().collect();
    lines.sort_unstable();
    let wanted = [
        "EXTRA=a=b",
        "HOME=/tmp",
        "LOGNAME=alice",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "SHELL=/bin/sh",
        "USER=alice",
    ];
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn it_has_three_descriptors_no_signal_changed_and_a_session_of_its_own() {
    // 3 is the folder that ls itself reads.
    assert_eq!(
        output(argv(&["ls", "/proc/self/fd"])).await.text(),
        "0\n1\n2\n3\n"
    );
    let status = output(argv(&[
        "grep",
        "-E",
        "^(SigIgn|SigBlk|SigCgt|NSsid|NSpgid|Pid|Umask)",
        "/proc/self/status",
    ]))
    .await;
    let value = |name: &str| {
        let line = status.text().lines().find(|line| line.starts_with(name));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["SigIgn", "SigBlk"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (value("NSsid"), value("NSpgid")),
        (value("Pid"), value("Pid"))
    );
    assert_eq!(value("Umask"), "0022");
}

#[tokio::test]
async fn a_login_shell_is_started_as_login_does() {
    let mut spec = spec(Command::LoginShell);
    spec.stdin = true;
    let client = begin(&ProcessRegistry::default(), spec).await;
    client
        .input
        .send(Input::Stdin(Bytes::from_static(b"echo $0\n")))
        .await
        .unwrap();
    client.input.send(Input::CloseStdin).await.unwrap();
    assert_eq!(finish(client).await.text(), "-sh\n");
}

#[tokio::test]
async fn a_timeout_ends_the_group_and_those_who_ignore_sigterm() {
    let registry = ProcessRegistry::default();
    let mut spec = line("(trap '' TERM; echo ready; while :; do sleep 0.1; done) & wait");
    spec.timeout = Some(Duration::from_millis(300));
    let mut client = begin(&registry, spec).await;
    let (pid, since) = (client.pid, Instant::now());
    read_until(&mut client, "ready").await;
    let exit = finish(client).await.exit;
    assert!(exit.timed_out && matches!(exit.status, ExitStatus::Signal { number: 15, .. }));
    all_gone(&registry).await;
    group_ends(pid).await;
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_vanished_client_ends_the_group() {
    for policy in [OnDisconnect::HangUp, OnDisconnect::Kill] {
        for terminal in [false, true] {
            let registry = ProcessRegistry::default();
            let mut spec = line("trap '' HUP; sleep 1000 & echo ready; wait; wait");
            if terminal {
                spec = in_terminal(spec);
            }
            let mut client = registry.run(account(), spec, policy).await.unwrap();
            let pid = client.pid;
            read_until(&mut client, "ready").await;
            assert!(group_runs(pid));
            drop(client);
            all_gone(&registry).await;
            group_ends(pid).await;
        }
    }
}

#[tokio::test]
async fn a_program_may_outlive_its_client() {
    let registry = ProcessRegistry::default();
    let spec = argv(&["head", "-c", "10000000", "/dev/zero"]);
    drop(
        registry
            .run(account(), spec, OnDisconnect::Keep)
            .await
            .unwrap(),
    );
    all_gone(&registry).await;
    let [process] = &registry.list()[..] else {
        panic!("one process is known");
    };
    assert_eq!(process.exit.unwrap().status, ExitStatus::Code(0));
    assert_eq!(process.stdout_bytes, 10_000_000);
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_its_program_only() {
    let registry = ProcessRegistry::default();
    let stalled = begin(&registry, argv(&["yes"])).await;
    assert_eq!(output(line("echo hi")).await.text(), "hi\n");
    let id = stalled.id;
    let signal = Input::Signal(SignalNumber::KILL, Target::Group);
    stalled.input.send(signal).await.unwrap();
    let finished = finish(stalled).await;
    assert!(matches!(
        finished.exit.status,
        ExitStatus::Signal { number: 9, .. }
    ));
    let known = registry.list();
    assert_eq!(known[0].id, id);
    assert_eq!(known[0].stdout_bytes, finished.stdout.len() as u64);
}

#[tokio::test]
async fn a_process_is_signalled_by_its_number_until_it_ended() {
    let registry = ProcessRegistry::default();
    let client = begin(&registry, argv(&["sleep", "1000"])).await;
    let id = client.id;
    let signal = || registry.signal(id, SignalNumber::KILL, Target::Group);
    signal().unwrap();
    finish(client).await;
    assert!(matches!(signal(), Err(super::SignalError::Ended(_))));
    all_gone(&registry).await;
}

#[tokio::test]
async fn two_hundred_at_once_are_told_apart_and_reaped() {
    let registry = ProcessRegistry::default();
    let runs = (0..200).map(|n| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let client = begin(&registry, line(&format!("echo {n}; exit {n}"))).await;
            let pid = client.pid;
            let finished = finish(client).await;
            assert_eq!(finished.text(), format!("{n}\n"));
            assert_eq!(finished.exit.status, ExitStatus::Code(n));
            assert_eq!(
                peek_exit(Pid::from_raw(pid)),
                Err(Errno::ECHILD),
                "a zombie"
            );
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    all_gone(&registry).await;
}

//! Exits, signals, time limits, and what is left behind.

use super::*;

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
    timeout(DEADLINE, input.deaf())
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
async fn a_timeout_ends_the_group_and_those_who_ignore_sigterm() {
    let script = "(trap '' TERM; echo ready; while :; do sleep 0.1; done) & wait";
    // A busy machine may not come as far as it should in the first of them.
    for millis in [300, 3000, 20_000] {
        let registry = ProcessRegistry::default();
        let mut spec = line(script);
        spec.timeout = Some(Duration::from_millis(millis));
        let client = begin(&registry, spec).await;
        let pid = client.pid;
        let finished = finish(client).await;
        let exit = &finished.exit;
        assert!(exit.timed_out && matches!(exit.status, ExitStatus::Signal { number: 15, .. }));
        all_gone(&registry).await;
        group_ends(pid).await;
        if finished.text() == "ready\n" {
            return;
        }
    }
    panic!("nobody ignored SIGTERM");
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
async fn a_process_is_signalled_by_its_number_until_it_ended() {
    let registry = ProcessRegistry::default();
    let client = begin(&registry, argv(&["sleep", "1000"])).await;
    let id = client.id;
    let signal = || registry.signal(id, SignalNumber::KILL, Target::Group);
    signal().unwrap();
    finish(client).await;
    assert!(matches!(signal(), Err(SignalError::Ended(_))));
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

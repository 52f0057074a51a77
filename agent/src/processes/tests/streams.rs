//! What goes in and comes out.

use super::*;

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

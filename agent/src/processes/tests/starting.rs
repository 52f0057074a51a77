//! How a program is started, and what it finds.

use super::*;

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

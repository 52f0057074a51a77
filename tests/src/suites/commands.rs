//! The command line as a person or a script meets it: what it prints, and its exit codes.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use guestline_client::Offsets;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

cases![
    exec_passes_everything_through,
    exec_starts_a_program_as_it_is_asked_to,
    exec_says_why_a_program_did_not_run,
    run_is_found_attached_and_killed_by_name,
    attach_ends_with_the_programs_own_code,
    a_tree_is_copied_both_ways,
    a_tree_is_copied_into_a_directory_that_is_there,
    what_is_copied_here_gets_no_bit_of_the_umask,
    cat_writes_a_part_of_a_file,
    a_sum_is_that_of_the_hosts_tool,
    a_long_listing_has_names_and_where_asked_numbers,
    a_login_session_is_asked_for_or_said_to_be_impossible,
    an_unreachable_vm_is_said_with_its_endpoint,
];

/// The command, with everything of it at hand.
pub(super) fn guestline(target: &Target, user: &str) -> anyhow::Result<Command> {
    let program = std::env::current_exe()?.with_file_name("guestline");
    ensure!(
        program.exists(),
        "{} is missing: cargo build -p guestline-client",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .args(["--vm", &target.endpoint().to_string(), "--user", user])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(path) = target.secret_file() {
        command.env("GUESTLINE_SECRET_FILE", path);
    }
    Ok(command)
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn say(target: &Target, words: &[&str], stdin: &[u8]) -> anyhow::Result<Said> {
    let mut command = guestline(target, "alice")?;
    command.args(words);
    hear(command, stdin).await
}

async fn hear(mut command: Command, stdin: &[u8]) -> anyhow::Result<Said> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().context("piped")?;
    let feed = async {
        // A command that does not read its stdin closes it.
        let _ = pipe.write_all(stdin).await;
        drop(pipe);
    };
    let ended = async { tokio::join!(child.wait_with_output(), feed).0 };
    let output = timeout(PATIENCE, ended)
        .await
        .context("it does not end")??;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

async fn exec_passes_everything_through(target: &Target) -> Outcome {
    let words = [
        "exec",
        "-i",
        "--env",
        "GREETING=hello",
        "--shell",
        "cat; echo $GREETING >&2; exit 7",
    ];
    let said = say(target, &words, b"from the host").await?;
    ensure!(said.code == Some(7), "{:?} {}", said.code, said.stderr);
    ensure!(
        said.stdout == "from the host" && said.stderr == "hello\n",
        "{}",
        said.stderr
    );
    let killed = say(target, &["exec", "--shell", "kill -9 $$"], b"").await?;
    ensure!(killed.code == Some(137), "{:?}", killed.code);
    let late = say(target, &["exec", "--timeout", "0.2", "sleep", "1000"], b"").await?;
    ensure!(late.code == Some(124), "{:?}", late.code);
    Ok(())
}

async fn exec_starts_a_program_as_it_is_asked_to(target: &Target) -> Outcome {
    say(
        target,
        &["write", ".profile"],
        b"FROM=profile; export FROM\n",
    )
    .await?;
    let line = "echo $0 $FROM; umask; echo ${LANG-unset}";
    let words = ["exec", "--unset", "LANG", "--umask", "077", "--shell"];
    let plain = say(target, &[&words[..], &[line]].concat(), b"").await?;
    ensure!(
        plain.stdout == "/bin/sh\n0077\nunset\n",
        "{} {}",
        plain.stdout,
        plain.stderr
    );
    let login = say(target, &[&words[..], &["--login", line]].concat(), b"").await?;
    say(target, &["rm", ".profile"], b"").await?;
    ensure!(
        login.stdout == "-sh profile\n0077\nunset\n",
        "{} {}",
        login.stdout,
        login.stderr
    );
    Ok(())
}

async fn exec_says_why_a_program_did_not_run(target: &Target) -> Outcome {
    for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let said = say(target, &["exec", program], b"").await?;
        ensure!(said.code == Some(code), "{program}: {:?}", said.code);
        ensure!(
            said.stderr.contains(program) && said.stderr.contains("alice"),
            "{}",
            said.stderr
        );
    }
    Ok(())
}

async fn run_is_found_attached_and_killed_by_name(target: &Target) -> Outcome {
    let words = [
        "run",
        "-d",
        "--name",
        "ticker",
        "--shell",
        "while :; do echo tick; sleep 0.1; done",
    ];
    let started = say(target, &words, b"").await?;
    ensure!(started.code == Some(0), "{}", started.stderr);
    let id: u64 = started.stdout.trim().parse()?;
    let listed = say(target, &["ps", "--json"], b"").await?;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout)?;
    let found = listed
        .as_array()
        .context("a list")?
        .iter()
        .find(|one| one["process"] == id);
    ensure!(
        found.is_some_and(|one| one["name"] == "ticker" && one["detached"] == true),
        "{listed}"
    );
    let table = say(target, &["ps"], b"").await?;
    ensure!(
        table.stdout.lines().any(|line| line.contains("ticker")),
        "{}",
        table.stdout
    );
    let heard = target.user("alice").processes();
    let mut heard = heard.attach(id, Offsets::default()).await?;
    timeout(PATIENCE, heard.event())
        .await
        .context("no tick")??;
    drop(heard);
    let killed = say(target, &["kill", "-s", "INT", "ticker"], b"").await?;
    ensure!(killed.code == Some(0), "{}", killed.stderr);
    let attached = say(target, &["attach", "ticker"], b"").await?;
    ensure!(
        attached.code == Some(130),
        "{:?} {}",
        attached.code,
        attached.stderr
    );
    ensure!(attached.stdout.starts_with("tick\n"), "{}", attached.stdout);
    let unknown = say(target, &["attach", "nobody"], b"").await?;
    ensure!(
        unknown.stderr.contains("no process is named nobody"),
        "{}",
        unknown.stderr
    );
    Ok(())
}

async fn attach_ends_with_the_programs_own_code(target: &Target) -> Outcome {
    let words = [
        "run",
        "-i",
        "--shell",
        "read -r line; echo got $line; exit 9",
    ];
    let said = say(target, &words, b"it\n").await?;
    ensure!(
        said.code == Some(9) && said.stdout == "got it\n",
        "{:?} {}",
        said.code,
        said.stderr
    );
    Ok(())
}

async fn a_tree_is_copied_both_ways(target: &Target) -> Outcome {
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("deep/er"))?;
    std::fs::write(tree.join("deep/er/file"), "content")?;
    std::os::unix::fs::symlink("deep/er/file", tree.join("link"))?;
    let back = folder.path().join("back");
    let text = |path: &Path| path.display().to_string();
    let there = say(target, &["cp", "-r", &text(&tree), ":copied-tree"], b"").await?;
    ensure!(there.code == Some(0), "{}", there.stderr);
    let here = say(target, &["cp", "-r", ":copied-tree", &text(&back)], b"").await?;
    ensure!(here.code == Some(0), "{}", here.stderr);
    ensure!(std::fs::read_to_string(back.join("deep/er/file"))? == "content");
    ensure!(std::fs::read_link(back.join("link"))? == Path::new("deep/er/file"));
    let gone = say(target, &["rm", "-r", "copied-tree"], b"").await?;
    ensure!(gone.code == Some(0), "{}", gone.stderr);
    Ok(())
}

async fn a_tree_is_copied_into_a_directory_that_is_there(target: &Target) -> Outcome {
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree)?;
    std::fs::write(tree.join("file"), "content")?;
    let (tree, missing) = (tree.display().to_string(), folder.path().join("missing"));
    let below = missing.join("copy").display().to_string();
    say(target, &["mkdir", "parent"], b"").await?;
    let there = ["cp", "-r", &tree, ":missing/copy"];
    let here = ["cp", "-r", ":parent", &below];
    for words in [there, here] {
        let said = say(target, &words, b"").await?;
        ensure!(said.code == Some(1), "{words:?}: {:?}", said.code);
        ensure!(
            said.stderr.contains("there is no directory") && said.stderr.contains("missing"),
            "{}",
            said.stderr
        );
    }
    ensure!(!missing.exists(), "it was made here");
    let made = say(target, &["stat", "missing"], b"").await?;
    ensure!(made.code == Some(1), "it was made in the guest");
    let copied = say(target, &["cp", "-r", &tree, ":parent/copy"], b"").await?;
    ensure!(copied.code == Some(0), "{}", copied.stderr);
    let content = say(target, &["cat", "parent/copy/file"], b"").await?;
    ensure!(content.stdout == "content", "{}", content.stderr);
    say(target, &["rm", "-r", "parent"], b"").await?;
    Ok(())
}

async fn cat_writes_a_part_of_a_file(target: &Target) -> Outcome {
    say(target, &["write", "parts"], b"0123456789").await?;
    for (options, expected) in [
        (&["--offset", "3"][..], "3456789"),
        (&["--length", "2"][..], "01"),
        (&["--offset", "3", "--length", "4"][..], "3456"),
        (&["--offset", "1K"][..], ""),
    ] {
        let words = [&["cat"][..], options, &["parts"][..]].concat();
        let said = say(target, &words, b"").await?;
        ensure!(
            said.code == Some(0) && said.stdout == expected,
            "{options:?}: {} {}",
            said.stdout,
            said.stderr
        );
    }
    say(target, &["rm", "parts"], b"").await?;
    Ok(())
}

async fn what_is_copied_here_gets_no_bit_of_the_umask(target: &Target) -> Outcome {
    let mode = |path: &Path| -> anyhow::Result<u32> {
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
    };
    for words in [
        &["mkdir", "masked"][..],
        &["write", "masked/file"],
        &["chmod", "6775", "masked/file"],
        &["chmod", "1777", "masked"],
    ] {
        let made = say(target, words, b"content").await?;
        ensure!(made.code == Some(0), "{words:?}: {}", made.stderr);
    }
    let folder = tempfile::tempdir()?;
    let copies = [
        (&["cp", ":masked/file"][..], "one", "one"),
        (&["cp", "--resume", ":masked/file"][..], "two", "two"),
        (&["cp", "-r", ":masked"][..], "tree", "tree/file"),
    ];
    for (words, to, file) in copies {
        let (to, file) = (folder.path().join(to), folder.path().join(file));
        let mut command = under_umask("027", &guestline(target, "alice")?);
        command.args(words).arg(&to);
        let copied = hear(command, b"").await?;
        ensure!(copied.code == Some(0), "{words:?}: {}", copied.stderr);
        ensure!(mode(&to)? == 0o750, "{words:?}: {:o}", mode(&to)?);
        ensure!(mode(&file)? == 0o750, "{words:?}: {:o}", mode(&file)?);
        ensure!(std::fs::read(&file)? == b"content", "{words:?}");
    }
    say(target, &["rm", "-r", "masked"], b"").await?;
    Ok(())
}

/// The same command, by a shell that changes its umask first.
fn under_umask(umask: &str, command: &Command) -> Command {
    let command = command.as_std();
    let line = format!("umask {umask}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &line]).arg(command.get_program());
    shell.args(command.get_args()).kill_on_drop(true);
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

async fn a_sum_is_that_of_the_hosts_tool(target: &Target) -> Outcome {
    let written = say(target, &["write", "summed"], b"abc").await?;
    ensure!(written.code == Some(0), "{}", written.stderr);
    let sum = say(target, &["sum", "summed"], b"").await?;
    // FIPS 180-4's own example.
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    ensure!(
        sum.stdout.starts_with(expected),
        "{} {}",
        sum.stdout,
        sum.stderr
    );
    Ok(())
}

async fn a_long_listing_has_names_and_where_asked_numbers(target: &Target) -> Outcome {
    let made = say(target, &["mkdir", "listed"], b"").await?;
    ensure!(made.code == Some(0), "{}", made.stderr);
    say(target, &["write", "listed/file"], b"abc").await?;
    for (option, owner) in [("-l", "alice"), ("-n", "1000")] {
        let said = say(target, &["ls", option, "listed"], b"").await?;
        let words: Vec<_> = said.stdout.split_whitespace().collect();
        let expected = ["-rw-r--r--", "1", owner, owner, "3"];
        ensure!(
            words.starts_with(&expected),
            "{} {}",
            said.stdout,
            said.stderr
        );
    }
    // A file that is named lists itself.
    let said = say(target, &["ls", "-l", "listed/file"], b"").await?;
    ensure!(said.stdout.contains(" alice "), "{}", said.stdout);
    say(target, &["rm", "-r", "listed"], b"").await?;
    Ok(())
}

async fn a_login_session_is_asked_for_or_said_to_be_impossible(target: &Target) -> Outcome {
    let words = ["exec", "--session", "--shell", "echo $XDG_RUNTIME_DIR"];
    let said = say(target, &words, b"").await?;
    if target.name() == "debian" {
        ensure!(
            said.code == Some(0) && said.stdout == "/run/user/1000\n",
            "{}",
            said.stderr
        );
    } else {
        ensure!(said.code == Some(125), "{:?}", said.code);
        ensure!(
            said.stderr.contains("does not run systemd"),
            "{}",
            said.stderr
        );
    }
    Ok(())
}

async fn an_unreachable_vm_is_said_with_its_endpoint(_: &Target) -> Outcome {
    let nowhere = "unix:/no/such/agent.sock";
    let program = std::env::current_exe()?.with_file_name("guestline");
    let mut command = Command::new(program);
    command
        .args(["--vm", nowhere, "ls", "/"])
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await??;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains(nowhere), "{text}");
    ensure!(output.status.code() == Some(255), "{:?}", output.status);
    Ok(())
}

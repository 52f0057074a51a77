//! Small calls: one round trip, one program, one small file.

use std::{
    cell::RefCell,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use guestline_client::WriteOptions;

use crate::{
    sample::{Column, Contender, Row, Unit, blocking, interleave, millis},
    stage::{GUEST, Stage, USER, with},
};

const SMALL: usize = 4096;

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    stage
        .prepare(&format!(
            "head -c {SMALL} /dev/zero > {GUEST}/small && chmod 666 {GUEST}/small"
        ))
        .await?;
    Ok(vec![
        call(stage).await,
        exec_true(stage).await,
        exec_line(stage).await,
        new_user(stage).await,
        read_small(stage).await,
        write_small(stage).await,
    ])
}

async fn call(stage: &Stage) -> Row {
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || async {
        let start = Instant::now();
        stage.alice.files().stat("/").await?;
        Ok(millis(start.elapsed()))
    })];
    with(&mut contenders, &stage.raw, |raw| {
        Contender::new(Column::RAW, || async { Ok(millis(raw.ping().await?)) })
    });
    with(&mut contenders, &stage.qemu, |qemu| {
        Contender::new(Column::QEMU, || async { Ok(millis(qemu.ping().await?)) })
    });
    let title = "a call (stat of `/`; a plain round trip; guest-ping)";
    interleave(
        "call",
        title,
        Unit::Milliseconds,
        stage.rounds(500, 100),
        contenders,
    )
    .await
}

async fn exec_true(stage: &Stage) -> Row {
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || async {
        let start = Instant::now();
        let output = stage.alice.command("/bin/true").output().await?;
        ensure!(output.status.success(), "it failed");
        Ok(millis(start.elapsed()))
    })];
    with(&mut contenders, &stage.raw, |raw| {
        Contender::new(Column::RAW, || async { Ok(millis(raw.run().await?)) })
    });
    with(&mut contenders, &stage.command, |_| {
        Contender::new(Column::COMMAND, || {
            command(stage, &["exec", "--", "/bin/true"])
        })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::SSH, || async {
            Ok(millis(ssh.run("/bin/true").await?))
        })
    });
    with(&mut contenders, &stage.qemu, |qemu| {
        Contender::new(Column::QEMU, || async {
            Ok(millis(qemu.run("/bin/true", &[]).await?))
        })
    });
    let title = "`/bin/true` as alice (QEMU's agent: as root)";
    interleave(
        "exec-true",
        title,
        Unit::Milliseconds,
        stage.rounds(100, 20),
        contenders,
    )
    .await
}

async fn exec_line(stage: &Stage) -> Row {
    const LINE: &str = "echo hello | tr a-z A-Z";
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || async {
        let start = Instant::now();
        let output = stage.alice.shell(LINE).output().await?;
        ensure!(output.stdout == b"HELLO\n", "it printed {output:?}");
        Ok(millis(start.elapsed()))
    })];
    with(&mut contenders, &stage.command, |_| {
        Contender::new(Column::COMMAND, || {
            command(stage, &["exec", "--shell", LINE])
        })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::SSH, || async { Ok(millis(ssh.run(LINE).await?)) })
    });
    with(&mut contenders, &stage.qemu, |qemu| {
        Contender::new(Column::QEMU, || async {
            Ok(millis(qemu.run("/bin/sh", &["-c", LINE]).await?))
        })
    });
    let title = "a shell line with a pipe, as alice";
    interleave(
        "exec-line",
        title,
        Unit::Milliseconds,
        stage.rounds(50, 10),
        contenders,
    )
    .await
}

/// Of a user who has no worker yet: connect, hello, a worker's start, and the call.
async fn new_user(stage: &Stage) -> Row {
    let users = RefCell::new(stage.others.iter());
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || {
        let user = users.borrow_mut().next();
        async move {
            let user = user.context("there are no more new users")?;
            let vm = stage.root.user(user);
            let start = Instant::now();
            vm.files().stat("/").await?;
            Ok(millis(start.elapsed()))
        }
    })];
    with(&mut contenders, &stage.raw, |raw| {
        Contender::new(Column::RAW, || async { Ok(millis(raw.connect().await?)) })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::NEW_SSH, || async {
            Ok(millis(ssh.run_anew("true").await?))
        })
    });
    let title = "the first call of a new user (raw: connect and a round trip)";
    let rounds = stage.others.len().saturating_sub(1).clamp(1, 30);
    interleave(
        "new-user",
        title,
        Unit::Milliseconds,
        (rounds, true),
        contenders,
    )
    .await
}

async fn read_small(stage: &Stage) -> Row {
    let path = format!("{GUEST}/small");
    let path = path.as_str();
    let mut contenders = vec![Contender::new(Column::GUESTLINE, move || async move {
        let start = Instant::now();
        let content = stage.alice.files().read(path).await?;
        ensure!(content.len() == SMALL, "{} bytes", content.len());
        Ok(millis(start.elapsed()))
    })];
    with(&mut contenders, &stage.raw, |raw| {
        Contender::new(Column::RAW, || async {
            Ok(millis(raw.read(SMALL as u64).await?))
        })
    });
    with(&mut contenders, &stage.command, |_| {
        Contender::new(Column::COMMAND, move || async move {
            command(stage, &["cat", path]).await
        })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::SSH, move || async move {
            Ok(millis(ssh.run(&format!("cat {path}")).await?))
        })
    });
    with(&mut contenders, &stage.qemu, |qemu| {
        Contender::new(Column::QEMU, move || async move {
            Ok(millis(qemu.read(path, SMALL as u64).await?))
        })
    });
    interleave(
        "read-4k",
        "read of 4 KiB",
        Unit::Milliseconds,
        stage.rounds(200, 30),
        contenders,
    )
    .await
}

async fn write_small(stage: &Stage) -> Row {
    let path = format!("{GUEST}/small-written");
    let (path, place) = (path.as_str(), format!("{GUEST}/small-qemu"));
    let place = place.as_str();
    let mut contenders = vec![Contender::new(Column::GUESTLINE, move || async move {
        let start = Instant::now();
        let options = WriteOptions::truncate();
        let mut writer = stage.alice.files().write_with(path, options).await?;
        writer.write(vec![0; SMALL]).await?;
        writer.finish().await?;
        Ok(millis(start.elapsed()))
    })];
    with(&mut contenders, &stage.raw, |raw| {
        Contender::new(Column::RAW, || async {
            Ok(millis(raw.write(SMALL as u64).await?))
        })
    });
    with(&mut contenders, &stage.qemu, |qemu| {
        Contender::new(Column::QEMU, move || async move {
            Ok(millis(qemu.write(place, SMALL as u64).await?))
        })
    });
    interleave(
        "write-4k",
        "write of 4 KiB",
        Unit::Milliseconds,
        stage.rounds(200, 30),
        contenders,
    )
    .await
}

/// One run of the `guestline` command as alice.
async fn command(stage: &Stage, words: &[&str]) -> anyhow::Result<f64> {
    let program = stage.command.as_ref().context("there is no command")?;
    let mut command = Command::new(program);
    let endpoint = stage.root.endpoint().to_string();
    command
        .args(["--vm", &endpoint, "--user", USER])
        .args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let time: Duration = blocking(move || {
        let start = Instant::now();
        let status = command.status()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(start.elapsed())
    })
    .await?;
    Ok(millis(time))
}

//! A machine whose processors stand still for a while, as for a snapshot (promise 33).

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use guestline_client::Event;
use guestline_machine::Record;
use tokio::time::timeout;

use crate::{cases, runner::Outcome, target::Target};

cases![calls_of_before_a_pause_go_on_after_it_and_the_clock_is_right: [33]];

/// How long the machine stands still: less than a client waits for the answer to a ping.
const PAUSE: Duration = Duration::from_secs(3);

const DEADLINE: Duration = Duration::from_secs(60);

/// The record of the machine that answers there.
fn record_of(target: &Target) -> anyhow::Result<Record> {
    let endpoint = target.endpoint().to_string();
    let records = guestline_machine::list()?;
    let mut records = records.into_iter();
    let found = records.find(|record| record.endpoint().as_ref() == Some(&endpoint));
    found.with_context(|| format!("no machine answers at {endpoint}"))
}

async fn calls_of_before_a_pause_go_on_after_it_and_the_clock_is_right(target: &Target) -> Outcome {
    let machine = record_of(target)?;
    let (root, alice) = (target.user("root"), target.user("alice"));
    root.system()
        .set_time(SystemTime::now())
        .await
        .context("set_time")?;
    let mut echo = alice.command("cat").stdin(true).spawn().await?;
    echo.input().write("before ").await;
    ensure!(echo.event().await? == Event::Stdout("before ".into()));

    machine.pause()?;
    let since = SystemTime::now();
    echo.input().write("meanwhile ").await;
    let files = alice.files();
    let late = tokio::spawn(async move { files.read("/etc/passwd").await });
    tokio::time::sleep(PAUSE.saturating_sub(since.elapsed()?)).await;
    machine.resume()?;

    let event = timeout(DEADLINE, echo.event()).await;
    let event = event.context("the program's output")??;
    ensure!(event == Event::Stdout("meanwhile ".into()), "{event:?}");
    echo.input().close().await;
    let status = timeout(DEADLINE, echo.wait()).await.context("its end")??;
    ensure!(status.success(), "{status:?}");
    let late = timeout(DEADLINE, late).await;
    let late = late.context("the call of meanwhile")??;
    ensure!(late?.starts_with(b"root:"), "the call of meanwhile");

    // What lies between two looks at our own clock is as right as any.
    let off = async || -> anyhow::Result<Duration> {
        let alice = target.user("alice");
        let before = SystemTime::now();
        let shown = alice.system().info().await?.now.context("no time")?;
        let early = before.duration_since(shown).unwrap_or_default();
        Ok(early.max(shown.duration_since(SystemTime::now()).unwrap_or_default()))
    };
    root.system()
        .resumed(SystemTime::now(), vec![7; 32])
        .await?;
    let behind = off().await.context("after Resumed")?;
    ensure!(
        behind < Duration::from_millis(100),
        "the clock is off by {behind:?}"
    );
    Ok(())
}

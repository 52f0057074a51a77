//! A machine whose processors stand still for a while, as for a snapshot (promise 33).

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use guestline_client::Event;
use guestline_machine::Record;
use tokio::time::timeout;

use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

cases![calls_of_before_a_pause_go_on_after_it_and_the_clock_is_right: [33]];

/// How long the machine stands still: less than a client waits for the answer to a ping.
const PAUSE: Duration = Duration::from_secs(3);

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
    // As in a snapshot of before: a processor that only stands still has a clock that goes on.
    let earlier = SystemTime::now() - Duration::from_secs(3600);
    root.system().set_time(earlier).await.context("set_time")?;
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

    let event = timeout(PATIENCE, echo.event()).await;
    let event = event.context("the program's output")??;
    ensure!(event == Event::Stdout("meanwhile ".into()), "{event:?}");
    echo.input().close().await;
    let status = timeout(PATIENCE, echo.wait()).await.context("its end")??;
    ensure!(status.success(), "{status:?}");
    let late = timeout(PATIENCE, late).await;
    let late = late.context("the call of meanwhile")??;
    ensure!(late?.starts_with(b"root:"), "the call of meanwhile");

    // What lies between what was told and now is as right as any: it went on from there when the word arrived.
    let told = SystemTime::now();
    root.system().resumed(told, vec![7; 32]).await?;
    let info = target.user("alice").system().info().await;
    let shown = info.context("after Resumed")?.now.context("no time")?;
    let now = SystemTime::now();
    let off = told.duration_since(shown).unwrap_or_default();
    let off = off.max(shown.duration_since(now).unwrap_or_default());
    ensure!(
        off < Duration::from_millis(100),
        "told {told:?}, it shows {shown:?} at {now:?}"
    );
    Ok(())
}

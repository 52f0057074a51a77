//! The agent itself: its size, its start, and its share of the guest's boot.

use std::{fs, path::Path};

use anyhow::Context;

use crate::{
    measures::many::single,
    peers::raw,
    sample::{Column, Contender, Row, Unit, interleave},
    stage::Stage,
};

pub(crate) async fn measure(stage: &Stage, agent: &Path) -> anyhow::Result<Vec<Row>> {
    let size = fs::metadata(agent).context("the agent's binary")?.len();
    let start = Contender::new(Column::GUESTLINE, || async {
        let socket = "/run/guestline-bench.sock";
        let line = format!(
            "rm -f {socket}; mkdir -p /run/guestline-bench && {} ready {socket} /usr/local/bin/guestline-agent \
             --listen unix:{socket} --runtime-directory /run/guestline-bench 2>/dev/null",
            raw::PATH
        );
        let micros: f64 = stage.prepare(&line).await?.trim().parse()?;
        Ok(micros / 1000.0)
    });
    let started = interleave(
        "agent-start",
        "from the agent's start until it takes connections",
        Unit::Milliseconds,
        stage.rounds(20, 3),
        vec![start],
    )
    .await;
    let mut rows = vec![single(
        "agent-size",
        "the agent's binary, stripped",
        Unit::Size,
        size as f64 / (1 << 20) as f64,
    )];
    let start = started.median(Column::GUESTLINE.0);
    rows.push(started);
    match (boot(stage).await, start) {
        (Ok(boot), Some(start)) => {
            rows.push(single(
                "boot",
                "the guest's boot (systemd-analyze)",
                Unit::Milliseconds,
                boot,
            ));
            let share = 100.0 * start / boot;
            rows.push(single(
                "agent-share",
                "the agent's start as a share of it",
                Unit::Percent,
                share,
            ));
        }
        (Err(error), _) => eprintln!("bench: the boot's time is not known: {error:#}"),
        _ => {}
    }
    Ok(rows)
}

/// Kernel and user space until the default target, in milliseconds: properties of systemd's manager, microseconds since
/// the kernel's start.
async fn boot(stage: &Stage) -> anyhow::Result<f64> {
    let line = "systemctl show --value --property=FinishTimestampMonotonic";
    let micros: f64 = stage.prepare(line).await?.trim().parse()?;
    anyhow::ensure!(micros > 0.0, "the guest is not done with booting");
    Ok(micros / 1000.0)
}

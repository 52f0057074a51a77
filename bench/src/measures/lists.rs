//! Listing one directory, with the attributes of every entry, beside find(1) that prints them in the guest to nobody.

use std::time::Instant;

use anyhow::ensure;

use crate::{
    peers::raw,
    sample::{Column, Contender, Row, Unit, interleave, millis},
    stage::{GUEST, Stage},
};

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let sizes: &[(u64, usize)] = if stage.quick {
        &[(10_000, 3)]
    } else {
        &[(10_000, 10), (100_000, 3), (1_000_000, 2)]
    };
    let mut rows = Vec::new();
    for &(count, rounds) in sizes {
        let folder = format!("{GUEST}/many");
        stage
            .prepare(&format!(
                "rm -rf {folder}; {} fill {folder} {count}",
                raw::PATH
            ))
            .await?;
        rows.push(list(stage, &folder, count, rounds).await);
        stage.prepare(&format!("rm -rf {folder}")).await?;
    }
    Ok(rows)
}

async fn list(stage: &Stage, folder: &str, count: u64, rounds: usize) -> Row {
    let ours = Contender::new(Column::GUESTLINE, move || async move {
        let start = Instant::now();
        let mut stream = stage.alice.files().list(folder, 1).await?;
        let mut got = 0;
        while let Some(entry) = stream.next().await? {
            got += u64::from(entry.metadata.is_some());
        }
        ensure!(got == count, "{got} entries of {count}");
        Ok(millis(start.elapsed()))
    });
    let find = Contender::new(Column::FIND, move || async move {
        let format = "%y %m %U %G %s %T@ %p\\n";
        let line = format!("find {folder} -printf '{format}' > /dev/null");
        let output = stage.alice.shell(line).output().await?;
        ensure!(output.status.success(), "find failed");
        Ok(millis(output.status.wall_time))
    });
    let (id, title) = (format!("list-{count}"), format!("list of {count} entries"));
    interleave(
        &id,
        &title,
        Unit::Milliseconds,
        (rounds, rounds > 2),
        vec![ours, find],
    )
    .await
}

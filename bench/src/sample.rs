//! Measurements that alternate: each round takes one of every contender, so that what else the host does meets all alike.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};

/// Who is measured: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Column(pub(crate) &'static str);

impl Column {
    /// The library, on one connection.
    pub(crate) const GUESTLINE: Self = Self("guestline");
    /// The `guestline` command: a process and a connection each time.
    pub(crate) const COMMAND: Self = Self("guestline command");
    /// The limit: bench/guest/raw.rs.
    pub(crate) const RAW: Self = Self("raw");
    /// OpenSSH over vsock, by a connection that is there already.
    pub(crate) const SSH: Self = Self("ssh");
    /// The same, with a connection of its own.
    pub(crate) const NEW_SSH: Self = Self("ssh, new connection");
    /// scp over that connection.
    pub(crate) const SCP: Self = Self("scp");
    /// scp to the gateway, by a connection that is there already.
    pub(crate) const GATEWAY_SCP: Self = Self("scp by the gateway");
    /// sftp over that connection.
    pub(crate) const GATEWAY_SFTP: Self = Self("sftp by the gateway");
    /// tar through ssh.
    pub(crate) const TAR: Self = Self("tar through ssh");
    /// QEMU's guest agent over virtio-serial.
    pub(crate) const QEMU: Self = Self("QEMU's agent");
    /// find(1), in the guest.
    pub(crate) const FIND: Self = Self("find in the guest");

    /// All, in the table's order.
    pub(crate) const ALL: [Self; 11] = [
        Self::GUESTLINE,
        Self::RAW,
        Self::COMMAND,
        Self::SSH,
        Self::NEW_SSH,
        Self::SCP,
        Self::GATEWAY_SCP,
        Self::GATEWAY_SFTP,
        Self::TAR,
        Self::QEMU,
        Self::FIND,
    ];
}

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// More is better.
    #[serde(rename = "MiB/s")]
    Throughput,
    /// More is better.
    #[serde(rename = "1/s")]
    Rate,
    /// Less is better.
    #[serde(rename = "MiB")]
    Size,
    /// Of what the title says.
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Throughput => "MiB/s",
            Self::Rate => "1/s",
            Self::Size => "MiB",
            Self::Percent => "%",
        }
    }
}

/// A measurement in flight. Not `Send`: all are made by one thread.
pub(crate) type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<f64>> + 'a>>;

/// One of those who are measured in a row.
pub(crate) struct Contender<'a> {
    column: Column,
    run: Box<dyn FnMut() -> Measuring<'a> + 'a>,
}

impl<'a> Contender<'a> {
    /// `run` makes one measurement, in the row's unit.
    pub(crate) fn new<F>(column: Column, mut run: impl FnMut() -> F + 'a) -> Self
    where
        F: Future<Output = anyhow::Result<f64>> + 'a,
    {
        Self {
            column,
            run: Box::new(move || Box::pin(run())),
        }
    }
}

/// What one contender's measurements come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// Measured.
    Measured(Spread),
    /// It failed, and how: no figure.
    Failed {
        /// Its error.
        failed: String,
    },
}

/// The middle, and where most are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Half are below.
    pub(crate) median: f64,
    /// A tenth are below.
    pub(crate) p10: f64,
    /// A tenth are above.
    pub(crate) p90: f64,
    /// How many.
    pub(crate) samples: usize,
}

impl Spread {
    /// Of at least one.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
        let middle = (samples.len() - 1) / 2..samples.len() / 2 + 1;
        let median = samples[middle.clone()].iter().sum::<f64>() / middle.len() as f64;
        Self {
            median,
            p10: at(0.1),
            p90: at(0.9),
            samples: samples.len(),
        }
    }
}

/// What a row of the table holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// For the targets and the plots.
    pub(crate) id: String,
    /// For people.
    pub(crate) title: String,
    /// Of all its numbers.
    pub(crate) unit: Unit,
    /// By column.
    pub(crate) cells: BTreeMap<String, Cell>,
    /// Ours divided by each other's, measured in pairs.
    pub(crate) ratios: BTreeMap<String, Spread>,
}

impl Row {
    /// Of ours alone.
    pub(crate) fn of_ours(id: &str, title: &str, unit: Unit, spread: Spread) -> Self {
        let cells = BTreeMap::from([(Column::GUESTLINE.0.to_owned(), Cell::Measured(spread))]);
        let (id, title, ratios) = (id.into(), title.into(), BTreeMap::new());
        let row = Self {
            id,
            title,
            unit,
            cells,
            ratios,
        };
        eprintln!("bench: {}", crate::table::line(&row));
        row
    }

    /// The median of a column that was measured.
    pub(crate) fn median(&self, column: &str) -> Option<f64> {
        match self.cells.get(column)? {
            Cell::Measured(spread) => Some(spread.median),
            Cell::Failed { .. } => None,
        }
    }
}

/// Takes `rounds` measurements of each, in turn, after one that does not count where `warm` says so.
pub(crate) async fn interleave(
    id: &str,
    title: &str,
    unit: Unit,
    (rounds, warm): (usize, bool),
    mut contenders: Vec<Contender<'_>>,
) -> Row {
    let mut taken: Vec<Result<Vec<f64>, String>> =
        contenders.iter().map(|_| Ok(Vec::new())).collect();
    for round in 0..rounds + usize::from(warm) {
        for (contender, taken) in contenders.iter_mut().zip(&mut taken) {
            let Ok(samples) = taken else { continue };
            match (contender.run)().await {
                Ok(_) if warm && round == 0 => {}
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    eprintln!("bench: {title}: {}: {error:#}", contender.column.0);
                    *taken = Err(format!("{error:#}"));
                }
            }
        }
    }
    let ours = contenders
        .iter()
        .position(|contender| contender.column == Column::GUESTLINE)
        .and_then(|at| taken[at].clone().ok());
    let (mut cells, mut ratios) = (BTreeMap::new(), BTreeMap::new());
    for (contender, taken) in contenders.iter().zip(taken) {
        let name = contender.column.0.to_owned();
        let cell = match taken {
            Ok(samples) => {
                if let Some(ours) = &ours
                    && contender.column != Column::GUESTLINE
                {
                    let pairs = ours
                        .iter()
                        .zip(&samples)
                        .map(|(ours, theirs)| ours / theirs);
                    ratios.insert(name.clone(), Spread::of(pairs.collect()));
                }
                Cell::Measured(Spread::of(samples))
            }
            Err(failed) => Cell::Failed { failed },
        };
        cells.insert(name, cell);
    }
    let row = Row {
        id: id.into(),
        title: title.into(),
        unit,
        cells,
        ratios,
    };
    eprintln!("bench: {}", crate::table::line(&row));
    row
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// In MiB a second.
pub(crate) fn throughput(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / (1 << 20) as f64 / time.as_secs_f64()
}

/// Runs what blocks on another thread, so that connections of this one stay alive meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tenths() {
        let spread = Spread::of((0..=100).rev().map(f64::from).collect());
        assert_eq!((spread.median, spread.p10, spread.p90), (50.0, 10.0, 90.0));
        assert_eq!(Spread::of(vec![3.0]).p90, 3.0);
        assert_eq!(Spread::of(vec![3.0, 1.0]).median, 2.0);
    }

    #[tokio::test]
    async fn who_fails_has_no_figure_and_the_others_go_on() {
        let good = Contender::new(Column::GUESTLINE, || async { Ok(2.0) });
        let half = Contender::new(Column::RAW, || async { Ok(4.0) });
        let mut left = 2;
        let bad = Contender::new(Column::SSH, move || {
            left -= 1;
            async move {
                anyhow::ensure!(left > 0, "gone");
                Ok(1.0)
            }
        });
        let contenders = vec![good, bad, half];
        let row = interleave("id", "title", Unit::Milliseconds, (3, false), contenders).await;
        assert_eq!(row.median("guestline"), Some(2.0));
        assert_eq!(row.median("ssh"), None);
        assert!(matches!(&row.cells["ssh"], Cell::Failed { failed } if failed == "gone"));
        assert_eq!(row.ratios["raw"].median, 0.5);
        assert!(!row.ratios.contains_key("ssh"));
    }
}

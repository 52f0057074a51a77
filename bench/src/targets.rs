//! The targets, as ratios in one run, and how far they are reached.

use crate::{
    report::Report,
    sample::{Column, Row},
};

/// What a target says of a ratio, or of a figure where `of` is absent.
struct Target {
    text: &'static str,
    ours: (&'static str, Column),
    of: Option<(&'static str, Column)>,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A target that was held against the report.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) target: &'static str,
    pub(crate) bound: String,
    /// `None`: one of its rows was not measured.
    pub(crate) measured: Option<f64>,
    pub(crate) reached: bool,
}

const fn ratio(text: &'static str, row: &'static str, of: Column, bound: Bound) -> Target {
    Target {
        text,
        ours: (row, Column::GUESTLINE),
        of: Some((row, of)),
        bound,
    }
}

const fn against(
    text: &'static str,
    row: &'static str,
    other: &'static str,
    bound: Bound,
) -> Target {
    Target {
        text,
        ours: (row, Column::GUESTLINE),
        of: Some((other, Column::GUESTLINE)),
        bound,
    }
}

const fn figure(text: &'static str, row: &'static str, bound: Bound) -> Target {
    Target {
        text,
        ours: (row, Column::GUESTLINE),
        of: None,
        bound,
    }
}

use Bound::{AtLeast, AtMost};

/// The gateway's SSH reaches at least 0.7 of the library's own.
const OF_THE_GATEWAY: f64 = 1.428;

const TARGETS: [Target; 25] = [
    ratio(
        "read 256 MiB, of raw vsock",
        "read-256m",
        Column::RAW,
        AtLeast(0.9),
    ),
    ratio(
        "write 256 MiB, of raw vsock",
        "write-256m",
        Column::RAW,
        AtLeast(0.9),
    ),
    ratio(
        "read 256 MiB, of scp",
        "read-256m",
        Column::SCP,
        AtLeast(5.0),
    ),
    ratio(
        "write 256 MiB, of scp",
        "write-256m",
        Column::SCP,
        AtLeast(5.0),
    ),
    ratio(
        "read 256 MiB, of QEMU's agent",
        "read-256m",
        Column::QEMU,
        AtLeast(5.0),
    ),
    ratio(
        "write 256 MiB, of QEMU's agent",
        "write-256m",
        Column::QEMU,
        AtLeast(5.0),
    ),
    ratio(
        "read 256 MiB, of scp by the gateway",
        "read-256m",
        Column::GATEWAY_SCP,
        AtMost(OF_THE_GATEWAY),
    ),
    ratio(
        "read 256 MiB, of sftp by the gateway",
        "read-256m",
        Column::GATEWAY_SFTP,
        AtMost(OF_THE_GATEWAY),
    ),
    ratio(
        "write 256 MiB, of scp by the gateway",
        "write-256m",
        Column::GATEWAY_SCP,
        AtMost(OF_THE_GATEWAY),
    ),
    ratio(
        "write 256 MiB, of sftp by the gateway",
        "write-256m",
        Column::GATEWAY_SFTP,
        AtMost(OF_THE_GATEWAY),
    ),
    ratio(
        "a unary call, of a raw round trip",
        "call",
        Column::RAW,
        AtMost(1.4),
    ),
    ratio(
        "`/bin/true` as alice, of the raw baseline",
        "exec-true",
        Column::RAW,
        AtMost(1.1),
    ),
    ratio(
        "`/bin/true` as alice, of multiplexed ssh",
        "exec-true",
        Column::SSH,
        AtMost(0.3),
    ),
    ratio(
        "`/bin/true` as alice, of QEMU's agent",
        "exec-true",
        Column::QEMU,
        AtMost(0.7),
    ),
    against(
        "a read of 4 KiB, of a unary call",
        "read-4k",
        "call",
        AtMost(1.3),
    ),
    ratio(
        "push of 10,000 files, of scp -r",
        "push-10000",
        Column::SCP,
        AtLeast(10.0),
    ),
    ratio(
        "push of 10,000 files, of tar through ssh",
        "push-10000",
        Column::TAR,
        AtLeast(3.0),
    ),
    ratio(
        "list of 1,000,000 entries, of find -printf",
        "list-1000000",
        Column::FIND,
        AtMost(1.5),
    ),
    against(
        "calls by 256 clients, of one client's",
        "calls-256",
        "calls-1",
        AtLeast(0.9),
    ),
    against(
        "bytes by 256 clients, of one client's",
        "bytes-256",
        "bytes-1",
        AtLeast(0.9),
    ),
    figure("MiB of the listener", "memory-listener", AtMost(3.0)),
    figure("MiB of an idle worker", "memory-idle", AtMost(4.0)),
    figure(
        "MiB of a worker that sends 4 GiB",
        "memory-read",
        AtMost(12.0),
    ),
    figure(
        "MiB of a worker that takes 4 GiB",
        "memory-write",
        AtMost(12.0),
    ),
    figure("MiB of the agent, stripped", "agent-size", AtMost(3.0)),
];

/// Holds each target against what was measured.
pub(crate) fn judge(report: &Report) -> Vec<Verdict> {
    let rows: Vec<&Row> = report
        .sections
        .iter()
        .flat_map(|section| &section.rows)
        .collect();
    let median = |(id, column): (&str, Column)| {
        let row = rows.iter().find(|row| row.id == id)?;
        row.median(column.0)
    };
    TARGETS
        .iter()
        .map(|target| {
            let ours = median(target.ours);
            let measured = match target.of {
                None => ours,
                Some(other) if other.0 == target.ours.0 => rows
                    .iter()
                    .find(|row| row.id == other.0)
                    .and_then(|row| Some(row.ratios.get(other.1.0)?.median)),
                Some(other) => ours.and_then(|ours| Some(ours / median(other)?)),
            };
            let (bound, reached) = match target.bound {
                AtLeast(bound) => (format!("≥ {bound}"), measured.is_some_and(|it| it >= bound)),
                AtMost(bound) => (format!("≤ {bound}"), measured.is_some_and(|it| it <= bound)),
            };
            Verdict {
                target: target.text,
                bound,
                measured,
                reached,
            }
        })
        .collect()
}

//! `guestline-bench run ENDPOINT …`: measures a machine that runs, beside the tools one would use instead. Started by
//! `cargo xtask bench`, which boots the machine; see bench/README.md.
//! `guestline-bench connect ENDPOINT PORT`: gives ssh a connection to that port of the guest.

mod measures;
mod peers;
mod plot;
mod report;
mod sample;
mod socket;
mod stage;
mod table;
mod targets;

use std::{fs, path::PathBuf, thread};

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use guestline_client::Endpoint;

use crate::{
    report::{Host, Report, Section},
    sample::Row,
    stage::Stage,
};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, and writes what it found.
    Run(Run),
    /// For ssh's ProxyCommand.
    Connect { endpoint: Endpoint, port: u32 },
}

#[derive(Debug, Args)]
struct Run {
    endpoint: Endpoint,
    /// The agent's binary, as it is in the machine.
    #[arg(long)]
    agent: PathBuf,
    /// The `guestline` command.
    #[arg(long)]
    guestline: Option<PathBuf>,
    /// The gateway's program.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// The socket of QEMU's guest agent.
    #[arg(long)]
    channel: Option<PathBuf>,
    /// A user of the machine besides alice; may be given more than once.
    #[arg(long = "user")]
    users: Vec<String>,
    /// "KVM" or "emulation".
    #[arg(long)]
    accelerator: String,
    /// Where the results go.
    #[arg(long)]
    results: PathBuf,
    /// Fewer and smaller measurements.
    #[arg(long)]
    quick: bool,
    /// These sections alone, and the others as they were; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
}

/// The sections, by the name that `--only` takes.
const SECTIONS: [(&str, &str); 7] = [
    ("agent", "The agent"),
    ("calls", "Small calls"),
    ("bulk", "Large files"),
    ("trees", "Folders of small files"),
    ("lists", "Lists"),
    ("many", "Many at once"),
    ("memory", "Memory"),
];

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Connect { endpoint, port } => peers::ssh::pass_connection(&endpoint, port),
        // One thread, as the `guestline` command has: a call needs no other to wake.
        Command::Run(run) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(measure(run)),
    }
}

async fn measure(run: Run) -> anyhow::Result<()> {
    let known = |name: &String| SECTIONS.iter().any(|(section, _)| section == name);
    ensure!(
        run.only.iter().all(known),
        "the sections are {:?}",
        SECTIONS.map(|(name, _)| name)
    );
    let Run {
        endpoint,
        channel,
        guestline,
        gateway,
        users,
        quick,
        ..
    } = run;
    let (stage, missing) = Stage::set(&endpoint, channel, guestline, gateway, users, quick).await?;
    let mut report = Report {
        machine: describe(&stage, &endpoint, run.accelerator).await?,
        missing,
        ..Report::default()
    };
    for (name, title) in SECTIONS {
        if !run.only.is_empty() && !run.only.iter().any(|only| only == name) {
            continue;
        }
        let rows: anyhow::Result<Vec<Row>> = match name {
            "agent" => measures::agent::measure(&stage, &run.agent).await,
            "calls" => measures::calls::measure(&stage).await,
            "bulk" => measures::bulk::measure(&stage).await,
            "trees" => measures::trees::measure(&stage).await,
            "lists" => measures::lists::measure(&stage).await,
            "many" => measures::many::measure(&stage).await,
            _ => measures::memory::measure(&stage).await,
        };
        match rows {
            Ok(rows) => report.sections.push(Section {
                name: name.into(),
                title: title.into(),
                rows,
            }),
            Err(error) => {
                eprintln!("bench: {title}: {error:#}");
                report.missing.insert(title.into(), format!("{error:#}"));
            }
        }
    }
    let name = if quick { "quick" } else { "full" };
    if !run.only.is_empty() {
        report.merge(&run.results.join(format!("{name}.json")))?;
    }
    report.write(&run.results, name)?;
    println!("{}", table::markdown(&report));
    Ok(())
}

/// Nothing that tells whose host it is.
async fn describe(stage: &Stage, endpoint: &Endpoint, accelerator: String) -> anyhow::Result<Host> {
    let guest = stage
        .prepare("uname -r; nproc; sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")
        .await?;
    let mut guest = guest.lines();
    let mut next = || guest.next().unwrap_or_default().to_owned();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let transport = match endpoint {
        Endpoint::Vsock { .. } => "the kernel's vhost-vsock",
        Endpoint::Hybrid { .. } => "vhost-device-vsock",
        Endpoint::Unix { .. } => "a Unix socket",
    };
    Ok(Host {
        processors: thread::available_parallelism().map_or(0, usize::from),
        model: model
            .unwrap_or("a processor without a name")
            .trim_matches([' ', '\t', ':'])
            .into(),
        accelerator,
        transport: transport.into(),
        kernel: next(),
        guest_processors: next().parse().unwrap_or(0),
        guest_memory: next().parse::<u64>().unwrap_or(0) / 1024,
        quick: stage.quick,
    })
}

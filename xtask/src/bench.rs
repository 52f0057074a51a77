//! `cargo xtask bench`: boots a machine with the peers in it and has `guestline-bench` measure it.

pub(crate) mod check;

use std::{fs, path::PathBuf, process::Command};

use clap::Args;
use guestline_machine::{Channel, ImageKind, Machine, MachineSpec, Setup, kvm_works};

use crate::{
    agent, packages,
    vm::READY_LIMIT,
    workspace::{cargo, check, root, target},
};

/// What the machine has beside the agent.
const PACKAGES: [&str; 2] = ["openssh-server", "qemu-guest-agent"];

/// What QEMU's guest agent listens to.
const CHANNEL: &str = "org.qemu.guest_agent.0";

/// Users besides alice: as many as are measured at once, or as first calls need.
const USERS: usize = 256;
const QUICK_USERS: usize = 16;

/// MiB: a million files in the guest's memory, and what else is measured there.
const MEMORY: u32 = 3072;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Fewer and smaller measurements, within five minutes.
    #[arg(long)]
    quick: bool,
    /// One section alone (agent, calls, bulk, trees, lists, many, memory), and the others as they were; may be given more than
    /// once.
    #[arg(long, value_name = "SECTION")]
    only: Vec<String>,
    /// Measures no time, but counts the instructions of hot paths under callgrind, and fails where more than 5 % came to those
    /// in bench/instructions.json.
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    check: bool,
    /// Writes the counts there instead.
    #[arg(long, requires = "check")]
    bless: bool,
    /// Measures a gateway with 10,000 machines and 100,000 tokens, in front of an agent on this host, and nothing else.
    #[arg(long, conflicts_with_all = ["quick", "only", "check"])]
    gateway: bool,
}

/// Pairs of commands that a gateway is measured by.
const COMMANDS: u32 = 1000;

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.check {
            return check::check(&check::build(cargo())?, self.bless);
        }
        if self.gateway {
            return measure_gateway();
        }
        packages::install(&[("/usr/bin/scp", "openssh-client")])?;
        let agent = agent::build()?;
        check(cargo().args([
            "build",
            "--quiet",
            "--profile",
            "host",
            "--package",
            "guestline-bench",
            "--package",
            "guestline-client",
            "--package",
            "guestline-gateway",
        ]))?;
        let folder = Folder::new()?;
        let socket = folder.0.join("qemu.sock");
        let others: Vec<String> = (0..if self.quick { QUICK_USERS } else { USERS })
            .map(|n| format!("user{n}"))
            .collect();
        let spec = MachineSpec {
            name: format!("bench-{}", std::process::id()),
            image: ImageKind::Debian,
            users: [vec!["alice".into()], others.clone()].concat(),
            memory: MEMORY,
            cpus: None,
            agent: agent.clone(),
            disk: None,
            packages: PACKAGES.map(str::to_owned).into(),
            channels: vec![Channel {
                name: CHANNEL.into(),
                socket: socket.clone(),
            }],
            // What the others are measured without.
            secret: false,
        };
        let mut machine = Machine::start(&Setup::new(&target()), &spec, false)?;
        machine.wait_ready(READY_LIMIT)?;
        let programs = target().join("host");
        let mut bench = Command::new(programs.join("guestline-bench"));
        bench.arg("run").arg(machine.endpoint());
        bench.arg("--agent").arg(&agent);
        bench.arg("--guestline").arg(programs.join("guestline"));
        bench
            .arg("--gateway")
            .arg(programs.join("guestline-gateway"));
        bench.arg("--channel").arg(&socket);
        let accelerator = if kvm_works() { "KVM" } else { "emulation" };
        bench.args(["--accelerator", accelerator]);
        bench.arg("--results").arg(root().join("bench/results"));
        bench.args(self.quick.then_some("--quick"));
        for user in &others {
            bench.args(["--user", user]);
        }
        for section in &self.only {
            bench.args(["--only", section]);
        }
        check(&mut bench)
    }
}

/// All of it built as it is shipped: what asks the gateway is a part of what is measured.
fn measure_gateway() -> anyhow::Result<()> {
    let agent = agent::build()?;
    let packages = [
        "--package",
        "guestline-tests",
        "--package",
        "guestline-gateway",
    ];
    let build = ["build", "--quiet", "--profile", "host"];
    check(cargo().args(build).args(packages))?;
    let programs = target().join("host");
    let mut measure = Command::new(programs.join("guestline-tests"));
    measure.arg("scale").arg(&agent);
    measure.arg(programs.join("guestline-gateway"));
    measure.arg(COMMANDS.to_string());
    measure.arg(root().join("bench/results/gateway.md"));
    check(&mut measure)
}

/// A short path for sockets (unix(7)), removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("guestline-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

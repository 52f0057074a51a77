//! `cargo xtask test`: unit tests, then the same cases over a Unix socket and in real machines.

use std::{path::Path, process::Command};

use anyhow::ensure;
use guestline_machine::{ImageKind, Machine, MachineSpec, Setup};

use crate::{
    agent,
    vm::READY_LIMIT,
    workspace::{cargo, check, target},
};

pub(crate) fn test() -> anyhow::Result<()> {
    check(cargo().args(["test", "--workspace", "--quiet"]))?;
    check(cargo().args(["build", "--quiet", "--package", "guestline-tests"]))?;
    let suites = target().join("debug/guestline-tests");
    let agent = agent::build()?;
    let mut failed = Vec::new();
    let mut note = |name: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            eprintln!("{name}: {error:#}");
            failed.push(name.to_owned());
        }
    };
    note(
        "local",
        check(Command::new(&suites).arg("local").arg(&agent)),
    );
    for image in [ImageKind::Minimal, ImageKind::Debian] {
        note(image.name(), in_machine(image, &suites, &agent));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn in_machine(image: ImageKind, suites: &Path, agent: &Path) -> anyhow::Result<()> {
    let setup = Setup::new(&target());
    let spec = MachineSpec {
        name: format!("test-{}-{}", image.name(), std::process::id()),
        image,
        users: vec!["alice".into(), "bob".into()],
        memory: 1024,
        agent: agent.into(),
    };
    let mut machine = Machine::start(&setup, &spec, false)?;
    machine.wait_ready(READY_LIMIT)?;
    check(Command::new(suites).args(["machine", image.name(), &machine.endpoint()]))
}

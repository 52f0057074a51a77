//! `guestline-tests local AGENT [FILTER]`: the cases against the agent's binary over a Unix socket.
//! `guestline-tests machine NAME ENDPOINT [FILTER]`: the same, and those for machines, against a running machine.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use guestline_tests::{
    runner::{self, Tally},
    suites,
    target::Target,
};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (target, filter) = match words[..] {
        ["local", agent] => (Target::local(Path::new(agent)).await?, ""),
        ["local", agent, filter] => (Target::local(Path::new(agent)).await?, filter),
        ["machine", name, endpoint] => (machine(name, endpoint)?, ""),
        ["machine", name, endpoint, filter] => (machine(name, endpoint)?, filter),
        _ => bail!("usage: guestline-tests local AGENT [FILTER] | machine NAME ENDPOINT [FILTER]"),
    };
    let mut cases: Vec<&[runner::Case]> = suites::everywhere();
    if target.is_machine() {
        cases.push(suites::machine::CASES);
    }
    if target.name() == "debian" {
        cases.push(suites::debian::CASES);
    }
    let mut total = Tally::default();
    for cases in cases {
        let tally = runner::run(&target, cases, filter).await;
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    println!(
        "{}: {} passed, {} failed",
        target.name(),
        total.passed,
        total.failed
    );
    if total.passed == 0 && total.failed == 0 {
        bail!("no case has {filter:?} in its name");
    }
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn machine(name: &str, endpoint: &str) -> anyhow::Result<Target> {
    let endpoint = endpoint
        .parse()
        .with_context(|| format!("{endpoint:?} is no endpoint"))?;
    Ok(Target::machine(name, endpoint))
}

//! `guestline-tests local AGENT [FILTER]`: the cases against the agent's binary over a Unix socket.
//! `guestline-tests switched AGENT [FILTER]`: those that kill an agent with switches at each step of what it does.
//! `guestline-tests gateway AGENT GATEWAY [FILTER]`: the gateway's binary in front of the agent's, on both databases.
//! `guestline-tests openapi GATEWAY VALIDATOR…`: the gateway's description of itself, held against a validator from outside.
//! `guestline-tests scale AGENT GATEWAY COMMANDS FILE`: what a gateway with many machines and tokens costs, into that file.
//! `guestline-tests ssh AGENT GATEWAY [FILTER]`: Debian's SSH clients against the gateway in front of the agent.
//! `guestline-tests ssh-machine GATEWAY ENDPOINT ANSIBLE [FILTER]`: Debian's own programs through the gateway in a debian machine.
//! `guestline-tests sdk AGENT GATEWAY TARGET [FILTER]`: the published SDK against a gateway that runs machines.
//! `guestline-tests machine NAME ENDPOINT [FILTER]`: the same, and those for machines, against a running machine. Its secret, if
//! it has one, is in the file GUESTLINE_SECRET_FILE or beside its socket.
//! `guestline-tests example EXPECTED local AGENT PROGRAM…`, or `… machine NAME ENDPOINT PROGRAM…`: a client in another
//! language, which must print what is in the file EXPECTED.
//! `guestline-tests promises FOLDER`: the table of promises, by what the steps of a test run printed; see `promises`.
//! `guestline-tests mutations AGENT`, or `… NAME ENDPOINT` for a machine: an agent with switches loses one defence after the
//! other, and the test of each must fail; see `mutations`.
//! `guestline-tests soak SECONDS SEED local AGENT`, or `… machine NAME ENDPOINT`: everything at random; see `suites::soak`.
//! `guestline-tests confined CALL ANSWER PROGRAM…`: becomes a program for which a system call does not work; see `confined`.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use guestline_tests::{
    confined, example, gateway, mutations,
    promises::Table,
    runner::{self, Tally},
    sdk, ssh, suites,
    target::Target,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("guestline-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["confined", call, answer, program @ ..] = &words[..] {
        return Err(confined::become_confined(call, answer, program));
    }
    if let ["promises", folder] = words[..] {
        let table = Table::of(Path::new(folder))?;
        print!("{table}");
        ensure!(table.holds(), "not every promise was shown");
        return Ok(ExitCode::SUCCESS);
    }
    if let ["mutations", agent] = words[..] {
        mutations::told(mutations::run_local(Path::new(agent)).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let ["mutations", name, endpoint] = words[..] {
        mutations::told(mutations::run_in_machine(&machine(name, endpoint)?).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let ["soak", seconds, seed, ref rest @ ..] = words[..] {
        let target = match rest {
            ["local", agent] => Target::local(Path::new(agent)).await?,
            ["machine", name, endpoint] => machine(name, endpoint)?,
            _ => bail!("soak SECONDS SEED local AGENT | soak SECONDS SEED machine NAME ENDPOINT"),
        };
        let period = Duration::from_secs(seconds.parse()?);
        suites::soak::run(&target, seed.parse()?, period).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let ["gateway", agent, program, ref filter @ ..] = words[..] {
        let filter = filter.first().copied().unwrap_or_default();
        let tally = gateway::run(agent.into(), program.into(), filter).await?;
        return finish("gateway", tally, filter);
    }
    if let ["openapi", program, ref validator @ ..] = words[..] {
        gateway::openapi::a_validator_takes_the_description(Path::new(program), validator).await?;
        println!("openapi: 1 passed, 0 failed");
        return Ok(ExitCode::SUCCESS);
    }
    if let ["scale", agent, program, commands, file] = words[..] {
        let (agent, program) = (Path::new(agent), Path::new(program));
        let figures = gateway::scale::measure(agent, program, commands.parse()?).await?;
        print!("{figures}");
        std::fs::write(file, figures.to_string())
            .with_context(|| format!("cannot write {file}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let ["ssh", agent, program, ref filter @ ..] = words[..] {
        let filter = filter.first().copied().unwrap_or_default();
        let tally = ssh::run(agent.as_ref(), program.as_ref(), filter).await?;
        return finish("ssh", tally, filter);
    }
    if let ["ssh-machine", program, endpoint, ansible, ref filter @ ..] = words[..] {
        let filter = filter.first().copied().unwrap_or_default();
        let machine = machine("debian", endpoint)?;
        let ansible = std::path::absolute(ansible)?;
        let tally = ssh::machine::run(machine, program.as_ref(), &ansible, filter).await?;
        return finish("ssh-machine", tally, filter);
    }
    if let ["sdk", agent, program, target, ref filter @ ..] = words[..] {
        let filter = filter.first().copied().unwrap_or_default();
        let agent = std::path::absolute(agent)?;
        let target = std::path::absolute(target)?;
        let tally = sdk::run(&agent, program.into(), &target, filter).await?;
        return finish("sdk", tally, filter);
    }
    let (target, filter) = match words[..] {
        ["local", agent] => (Target::local(Path::new(agent)).await?, ""),
        ["local", agent, filter] => (Target::local(Path::new(agent)).await?, filter),
        ["switched", agent, ref filter @ ..] => (
            Target::local(Path::new(agent)).await?.named("switched"),
            filter.first().copied().unwrap_or_default(),
        ),
        ["machine", name, endpoint] => (machine(name, endpoint)?, ""),
        ["machine", name, endpoint, filter] => (machine(name, endpoint)?, filter),
        ["example", expected, "local", agent, ref program @ ..] => {
            let target = Target::local(Path::new(agent)).await?;
            return run_example(&target, expected, program).await;
        }
        [
            "example",
            expected,
            "machine",
            name,
            endpoint,
            ref program @ ..,
        ] => {
            return run_example(&machine(name, endpoint)?, expected, program).await;
        }
        _ => bail!(
            "usage: guestline-tests local AGENT [FILTER] | switched AGENT [FILTER] | machine NAME ENDPOINT [FILTER] | gateway AGENT GATEWAY [FILTER] | openapi GATEWAY VALIDATOR… | scale AGENT GATEWAY COMMANDS FILE | ssh AGENT GATEWAY [FILTER] | ssh-machine GATEWAY ENDPOINT ANSIBLE [FILTER] | sdk AGENT GATEWAY TARGET [FILTER] | promises FOLDER | mutations AGENT | mutations NAME ENDPOINT | soak SECONDS SEED … | example EXPECTED local AGENT PROGRAM… | example EXPECTED machine NAME ENDPOINT PROGRAM…"
        ),
    };
    let mut total = Tally::default();
    for cases in suites::of(target.name()) {
        let tally = runner::run(&target, cases, filter).await;
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    finish(target.name(), total, filter)
}

fn finish(name: &str, total: Tally, filter: &str) -> anyhow::Result<ExitCode> {
    println!("{name}: {} passed, {} failed", total.passed, total.failed);
    if total.passed == 0 && total.failed == 0 {
        bail!("no case has {filter:?} in its name");
    }
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run_example(
    target: &Target,
    expected: &str,
    program: &[&str],
) -> anyhow::Result<ExitCode> {
    example::run(target, Path::new(expected), program).await?;
    println!("{}: 1 passed, 0 failed", target.name());
    Ok(ExitCode::SUCCESS)
}

fn machine(name: &str, endpoint: &str) -> anyhow::Result<Target> {
    let endpoint = endpoint
        .parse()
        .with_context(|| format!("{endpoint:?} is no endpoint"))?;
    let secret_file = std::env::var_os("GUESTLINE_SECRET_FILE").map(Into::into);
    Target::machine(name, endpoint, secret_file)
}

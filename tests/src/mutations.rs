//! Defences taken out, one at a time: the test that is named for a defence must fail without it, or it shows nothing.
//! Against a build of the agent with switches (agent/src/switches.rs). Each test must pass first, with all defences there.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    runner::{Case, outcome},
    suites::{self, restart::restart_without},
    target::Target,
};

/// A test that hangs without its defence has failed after this, or after so many times what it takes with the defence.
const LIMIT: Duration = Duration::from_secs(30);
const TIMES: u32 = 5;

/// With all defences there it may take its time: one that measures tries again and again on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);

/// A defence that is taken out.
struct Mutation {
    /// Its switch.
    defence: &'static str,
    /// The test that must miss it.
    test: &'static str,
    /// What the test says then: one that fails for another reason shows nothing.
    says: &'static str,
}

const fn without(defence: &'static str, test: &'static str, says: &'static str) -> Mutation {
    Mutation {
        defence,
        test,
        says,
    }
}

/// Of a test that waits for what does not come.
const HANGS: &str = "did not end within";

const LOCAL: &[Mutation] = &[
    without(
        "peer check",
        "peers::another_user_of_this_system_is_closed_unheard",
        "was answered",
    ),
    without(
        "hello bound",
        "connections::each_wrong_hello_gets_its_answer",
        "bad-hello no hello within",
    ),
    without(
        "hello deadline",
        "connections::a_silent_peer_is_closed_within_its_time",
        HANGS,
    ),
    without(
        "bound on silent connections",
        "flood::two_thousand_silent_connections_keep_nobody_out",
        "none was closed for those behind it",
    ),
    without(
        "bound on headers",
        "flood::headers_without_end_end_their_connection",
        HANGS,
    ),
    without(
        "drop check",
        "becoming::a_step_that_only_seems_to_succeed_is_found_out",
        "setgroups skipped",
    ),
    without(
        "empty environment",
        "proc::a_workers_own_links_lead_no_further_than_its_user_may_go",
        "/proc/self/environ has something",
    ),
    without(
        "descriptor hygiene",
        "becoming::what_the_agent_inherited_reaches_no_worker",
        "of a worker is",
    ),
    without(
        "execution",
        "becoming::nothing_that_the_listener_remembers_is_in_a_worker",
        "has what was the listener's",
    ),
    without(
        "signal reset",
        "isolation::a_child_is_its_user_and_nothing_more",
        "SigBlk:",
    ),
    without(
        "O_NONBLOCK",
        "races::a_fifo_that_takes_a_files_place_holds_nobody",
        "the FIFO holds a call",
    ),
    without(
        "atomic replace",
        "faults::a_killed_worker_leaves_the_old_content_and_no_trace",
        "the old content is gone",
    ),
    without(
        "bound on waiting output",
        "processes::a_reader_that_stalls_stalls_only_its_own_program",
        "the worker had",
    ),
    without(
        "bound on reports",
        "neighbours::who_has_a_worker_in_hand_is_heard_so_often_and_holds_nobody_up",
        "reports in",
    ),
    without(
        "ring bound",
        "detached::a_ring_that_overflows_tells_how_much_was_lost",
        "0 lost",
    ),
];

/// What the kernel of a machine must have its part in.
const IN_MACHINES: &[Mutation] = &[
    without(
        "peer check",
        "vsock::a_process_of_the_guest_is_closed_unheard",
        "through CID",
    ),
    without(
        "group kill",
        "groups::daemons_die_with_a_run_that_is_cancelled",
        HANGS,
    ),
];

/// Over a Unix socket, a fresh agent for each. Whether all failed as they must.
pub async fn run_local(agent: &Path) -> anyhow::Result<bool> {
    let folder = tempfile::Builder::new()
        .prefix("guestline-")
        .tempdir_in("/var/tmp")?;
    let copy = folder.path().join("guestline-agent");
    fs::copy(agent, &copy)?;
    let mut all = true;
    for mutation in LOCAL {
        let case = find("local", mutation.test)?;
        let _ = fs::remove_file(copy.with_extension("switches"));
        let took = passes(&Target::local(&copy).await?, case).await?;
        fs::write(copy.with_extension("switches"), mutation.defence)?;
        all &= fails(&Target::local(&copy).await?, mutation, case, took).await;
    }
    Ok(all)
}

/// In a machine that runs such an agent.
pub async fn run_in_machine(target: &Target) -> anyhow::Result<bool> {
    let mut all = true;
    for mutation in IN_MACHINES {
        let case = find(target.name(), mutation.test)?;
        let took = passes(target, case).await?;
        restart_without(target, mutation.defence).await?;
        all &= fails(target, mutation, case, took).await;
        restart_without(target, "").await?;
    }
    Ok(all)
}

fn find(target: &str, name: &str) -> anyhow::Result<&'static Case> {
    let mut cases = suites::of(target).into_iter().flatten();
    let found = cases.find(|case| case.short_name() == name);
    found.with_context(|| format!("{target} has no case {name}"))
}

/// Gives what it took.
async fn passes(target: &Target, case: &Case) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let result = outcome(target, case, PATIENCE).await;
    result.with_context(|| format!("{} fails with all defences there", case.short_name()))?;
    Ok(start.elapsed())
}

async fn fails(target: &Target, mutation: &Mutation, case: &Case, took: Duration) -> bool {
    let Mutation {
        defence,
        test,
        says,
    } = mutation;
    let why = match outcome(target, case, LIMIT.max(TIMES * took)).await {
        Ok(()) => {
            println!("without {defence}: {test} PASSES, so that it shows nothing");
            return false;
        }
        Err(error) => format!("{error:#}").replace('\n', " "),
    };
    let misses_it = why.contains(says);
    match misses_it {
        true => println!("without {defence}: {test} fails as it must\n    {why:.120}"),
        false => {
            println!("without {defence}: {test} FAILS OTHERWISE, not by {says:?}: {why:.1000}")
        }
    }
    misses_it
}

/// For a command: the sum of both.
pub fn told(all: bool) -> anyhow::Result<()> {
    if !all {
        bail!("a defence can be taken out, and its test does not notice");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_defence_has_its_test() {
        for (target, mutations) in [("local", LOCAL), ("minimal", IN_MACHINES)] {
            for mutation in mutations {
                find(target, mutation.test).unwrap();
            }
        }
    }
}

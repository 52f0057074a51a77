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

/// A defence by its switch, and the test that must miss it.
type Mutation = (&'static str, &'static str);

const LOCAL: &[Mutation] = &[
    (
        "peer check",
        "peers::another_user_of_this_system_is_closed_unheard",
    ),
    (
        "hello bound",
        "connections::each_wrong_hello_gets_its_answer",
    ),
    (
        "hello deadline",
        "connections::a_silent_peer_is_closed_within_its_time",
    ),
    (
        "bound on silent connections",
        "flood::two_thousand_silent_connections_keep_nobody_out",
    ),
    (
        "bound on headers",
        "flood::headers_without_end_end_their_connection",
    ),
    (
        "drop check",
        "becoming::a_step_that_only_seems_to_succeed_is_found_out",
    ),
    (
        "empty environment",
        "proc::a_workers_own_links_lead_no_further_than_its_user_may_go",
    ),
    (
        "descriptor hygiene",
        "becoming::what_the_agent_inherited_reaches_no_worker",
    ),
    (
        "execution",
        "becoming::nothing_that_the_listener_remembers_is_in_a_worker",
    ),
    (
        "signal reset",
        "isolation::a_child_is_its_user_and_nothing_more",
    ),
    (
        "O_NONBLOCK",
        "races::a_fifo_that_takes_a_files_place_holds_nobody",
    ),
    (
        "atomic replace",
        "faults::a_killed_worker_leaves_the_old_content_and_no_trace",
    ),
    (
        "bound on waiting output",
        "processes::a_reader_that_stalls_stalls_only_its_own_program",
    ),
    (
        "bound on reports",
        "neighbours::who_has_a_worker_in_hand_is_heard_so_often_and_holds_nobody_up",
    ),
    (
        "ring bound",
        "detached::a_ring_that_overflows_tells_how_much_was_lost",
    ),
];

/// What the kernel of a machine must have its part in.
const IN_MACHINES: &[Mutation] = &[
    (
        "peer check",
        "vsock::a_process_of_the_guest_is_closed_unheard",
    ),
    (
        "group kill",
        "groups::daemons_die_with_a_run_that_is_cancelled",
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
    for &(defence, name) in LOCAL {
        let case = find("local", name)?;
        let _ = fs::remove_file(copy.with_extension("switches"));
        let took = passes(&Target::local(&copy).await?, case).await?;
        fs::write(copy.with_extension("switches"), defence)?;
        all &= fails(&Target::local(&copy).await?, defence, case, took).await;
    }
    Ok(all)
}

/// In a machine that runs such an agent.
pub async fn run_in_machine(target: &Target) -> anyhow::Result<bool> {
    let mut all = true;
    for &(defence, name) in IN_MACHINES {
        let case = find(target.name(), name)?;
        let took = passes(target, case).await?;
        restart_without(target, defence).await?;
        all &= fails(target, defence, case, took).await;
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

async fn fails(target: &Target, defence: &str, case: &Case, took: Duration) -> bool {
    let name = case.short_name();
    match outcome(target, case, LIMIT.max(TIMES * took)).await {
        Ok(()) => {
            println!("without {defence}: {name} PASSES, so that it shows nothing");
            false
        }
        Err(error) => {
            let why = format!("{error:#}").replace('\n', " ");
            println!("without {defence}: {name} fails as it must\n    {why:.120}");
            true
        }
    }
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
            for (_, name) in mutations {
                find(target, name).unwrap();
            }
        }
    }
}

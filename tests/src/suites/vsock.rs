//! Who connects by vsock from within the guest, and who takes the agent's port: for machines.

use anyhow::{Context, ensure};

use super::{
    neighbours::{Neighbour, ask},
    restart::kill_listener,
    shell,
};
use crate::{cases, runner::Outcome, target::Target};

cases![
    a_process_of_the_guest_is_closed_unheard: [25],
    the_port_is_nobodys_while_the_agent_is_down: [27],
];

/// As root and as alice, through the loopback's CID 1 and the guest's own.
async fn a_process_of_the_guest_is_closed_unheard(target: &Target) -> Outcome {
    let root = target.user("root");
    let (loaded, _) = shell(&root, "grep -q ^vsock_loopback /proc/modules").await?;
    ensure!(
        loaded,
        "vsock_loopback is not loaded, so that this case could not fail"
    );
    let own = ask(&root, &["cid"]).await?;
    ensure!(own.parse::<u32>()? > 2, "the guest's CID is {own}");
    for user in ["root", "alice"] {
        for cid in ["1", &own] {
            let said = ask(&target.user(user), &["knock", &format!("vsock:{cid}:777")]).await?;
            ensure!(said == "closed", "{user} through CID {cid}: {said}");
        }
    }
    Ok(())
}

/// Alice tries without a pause while the listener is killed and started again; the kernel's rule is that of all ports below
/// 1024.
async fn the_port_is_nobodys_while_the_agent_is_down(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for (port, least) in [("777", 10), ("778", 1)] {
        let attack = Neighbour::start(&alice, &["squat", port]).await?;
        if port == "777" {
            kill_listener(target).await?;
        }
        let said = attack.end().await?;
        let refused = said.strip_prefix("bound 0 refused ").map(str::parse::<u64>);
        ensure!(
            matches!(refused, Some(Ok(count)) if count >= least),
            "{port}: {said}"
        );
    }
    let free = Neighbour::start(&alice, &["squat", "5000"])
        .await?
        .end()
        .await?;
    ensure!(
        !free.starts_with("bound 0 "),
        "alice can bind no port: {free}"
    );
    let root = Neighbour::start(&target.user("root"), &["squat", "778"]).await;
    let root = root.context("as root")?.end().await?;
    ensure!(!root.starts_with("bound 0 "), "nobody can bind 778: {root}");
    Ok(())
}

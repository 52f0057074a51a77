//! What the guest says of itself.

use anyhow::ensure;

use crate::{cases, runner::Outcome, target::Target};

cases![
    info_knows_the_guest_and_who_asks,
    users_and_groups_are_listed
];

async fn info_knows_the_guest_and_who_asks(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let info = alice.system().info().await?;
    let boot_id = String::from_utf8(
        alice
            .files()
            .read("/proc/sys/kernel/random/boot_id")
            .await?,
    )?;
    ensure!(
        info.boot_id == boot_id.trim() && info.memory.total > 0 && info.cpus > 0,
        "{info:?}"
    );
    ensure!(
        info.identity.uid == 1000 && info.identity.groups.contains(&1000),
        "{:?}",
        info.identity
    );
    Ok(())
}

async fn users_and_groups_are_listed(target: &Target) -> Outcome {
    let system = target.user("bob").system();
    let users = system.users().await?;
    let alice = users.iter().find(|user| user.name == "alice");
    ensure!(
        alice.is_some_and(|alice| alice.uid == 1000 && alice.home.ends_with("alice")),
        "{users:?}"
    );
    ensure!(
        system
            .groups()
            .await?
            .iter()
            .any(|group| group.name == "alice" && group.gid == 1000)
    );
    Ok(())
}

//! What needs more than busybox in the guest: systemd, sudo, quotas and perl.

use anyhow::ensure;
use guestline_client::{ErrorReason, Vm, WriteOptions};

use super::{
    isolation::listener_of,
    pattern, put, refusal,
    restart::{
        an_impostor_is_not_taken_for_a_worker, nobody_else_gets_near_where_a_worker_comes_back,
    },
    shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    the_agent_is_a_unit_that_came_up,
    the_oom_killer_spares_the_agent_and_roots_worker_alone: [31],
    an_impostor_is_not_taken_for_a_worker,
    nobody_else_gets_near_where_a_worker_comes_back,
    sudo_works_for_whom_it_is_allowed: [13],
    a_full_quota_leaves_the_old_content: [9],
];

/// Sets a limit of blocks of 1 KiB for a uid: quotactl(2), for which Debian's base has no program.
const SET_QUOTA: &str = r#"
my ($device, $uid, $blocks) = @ARGV;
# struct if_dqblk of linux/quota.h, of which dqb_valid says QIF_BLIMITS.
my $limits = pack("Q8Lx4", $blocks, $blocks, 0, 0, 0, 0, 0, 0, 1);
# SYS_quotactl, QCMD(Q_SETQUOTA, USRQUOTA)
syscall(179, 0x800008 << 8 | 0, $device, $uid + 0, $limits) == 0 or die "quotactl: $!";
"#;

async fn the_agent_is_a_unit_that_came_up(target: &Target) -> Outcome {
    let (active, state) =
        shell(&target.user("root"), "systemctl is-active guestline-agent").await?;
    ensure!(active, "the unit is {state}");
    Ok(())
}

async fn the_oom_killer_spares_the_agent_and_roots_worker_alone(target: &Target) -> Outcome {
    let root = target.user("root");
    let of = async |vm: &Vm, pid: &str| -> anyhow::Result<String> {
        let path = format!("/proc/{pid}/oom_score_adj");
        Ok(String::from_utf8(vm.files().read(path).await?)?)
    };
    let listener = listener_of(&root).await?;
    for (whose, adjustment) in [
        ("the listener", of(&root, &listener).await?),
        ("root's worker", of(&root, "self").await?),
    ] {
        ensure!(adjustment == "-900\n", "{whose} has {adjustment:?}");
    }
    let alice = target.user("alice");
    ensure!(
        of(&alice, "self").await? == "0\n",
        "alice's worker has another"
    );
    for vm in [&root, &alice] {
        let (_, adjustment) = shell(vm, "cat /proc/self/oom_score_adj").await?;
        ensure!(adjustment == "0\n", "a program has {adjustment:?}");
    }
    Ok(())
}

/// Nothing of the agent's stands in the way of a set-id program, such as no_new_privs.
async fn sudo_works_for_whom_it_is_allowed(target: &Target) -> Outcome {
    let rule = WriteOptions::replace().permissions(0o440);
    let file = "/etc/sudoers.d/guestline-test";
    let root = target.user("root").files();
    put(&root, file, "alice ALL=(ALL) NOPASSWD: ALL\n", rule).await?;
    let alice = target.user("alice");
    let (ok, ids) = shell(&alice, "sudo -n id -u; sudo -n -u bob id -un").await?;
    ensure!(ok && ids == "0\nbob\n", "alice's sudo gave {ids:?}");
    let (allowed, said) = shell(&target.user("bob"), "sudo -n id -u 2>&1").await?;
    ensure!(
        !allowed && said.contains("password"),
        "bob's sudo gave {said:?}"
    );
    root.remove_file(file).await?;
    let (still, _) = shell(&alice, "sudo -n id -u").await?;
    ensure!(!still, "alice's sudo works without its rule");
    Ok(())
}

/// For EDQUOT.
async fn a_full_quota_leaves_the_old_content(target: &Target) -> Outcome {
    let root = target.user("root");
    let line = "cd /root && truncate -s 64M quota.img && mkfs.ext4 -q -O quota quota.img && \
        device=$(losetup -f --show quota.img) && mkdir -p /mnt/quota && \
        mount -o usrquota $device /mnt/quota && chmod 777 /mnt/quota && echo $device";
    let (made, device) = shell(&root, line).await?;
    ensure!(made, "cannot make a file system with quotas");
    let mut limit = root.command("perl");
    let limit = limit.args(["-e", SET_QUOTA, device.trim(), "1000", "2048"]);
    let limit = limit.output().await?;
    ensure!(limit.status.success(), "{limit:?}");
    let (alice, bob) = (target.user("alice").files(), target.user("bob").files());
    alice.write("/mnt/quota/file", "old").await?;
    for (path, options) in [
        ("/mnt/quota/file", WriteOptions::replace()),
        ("/mnt/quota/new", WriteOptions::create_new()),
    ] {
        let write = put(&alice, path, pattern(4 << 20), options).await;
        let error = refusal("writing 4 MiB into a quota of 2", write)?;
        ensure!(
            error.reason() == Some(ErrorReason::QuotaExceeded),
            "{error:?}"
        );
    }
    ensure!(alice.read("/mnt/quota/file").await? == b"old");
    let names = alice.read_dir("/mnt/quota").await?;
    let names: Vec<_> = names.iter().map(|entry| entry.name()).collect();
    ensure!(
        names.len() == 2 && names.iter().any(|name| *name == "lost+found"),
        "{names:?}"
    );
    // What was taken up is given back, and the disk was not the limit.
    alice.write("/mnt/quota/file", pattern(1 << 20)).await?;
    bob.write("/mnt/quota/bobs", pattern(4 << 20)).await?;
    // Whoever wrote lets go of its files a moment after the answer.
    eventually("the file system can go", PATIENCE, async || {
        Ok(shell(&root, "umount /mnt/quota").await?.0)
    })
    .await?;
    let (gone, _) = shell(&root, "losetup -D && rm /root/quota.img").await?;
    ensure!(gone, "cannot take the disk away");
    Ok(())
}

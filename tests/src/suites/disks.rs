//! Disks that fail under a write: for guests with ext4, whose `abort` makes a file system read-only as a failing disk does.

use anyhow::ensure;
use guestline_client::{ErrorReason, WriteOptions};

use super::{pattern, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![a_disk_that_turns_read_only_under_a_write_keeps_the_old_content: [9]];

const MAKE: &str = "cd /root && truncate -s 64M failing.img && mkfs.ext4 -q failing.img && mkdir -p /mnt/failing && \
    mount -o loop,errors=remount-ro failing.img /mnt/failing && chmod 1777 /mnt/failing";

/// Its journal ends here: ext4(5) of e2fsprogs.
const FAIL: &str = "sync && mount -o remount,abort /mnt/failing";

/// Mounted again, the journal is replayed. What no name leads to is fsck's to free: ext4 keeps an aborted file system's.
const RECOVER: &str = "cd /root && umount /mnt/failing && mount -o loop failing.img /mnt/failing && ls -A /mnt/failing";

const REMOVE: &str = "cd /root && umount /mnt/failing && rm failing.img";

async fn a_disk_that_turns_read_only_under_a_write_keeps_the_old_content(
    target: &Target,
) -> Outcome {
    let root = target.user("root");
    ensure!(shell(&root, MAKE).await?.0, "no file system to fail");
    let alice = target.user("alice").files();
    alice.write("/mnt/failing/file", "old").await?;
    let mut writers = Vec::new();
    for (path, options) in [
        ("/mnt/failing/file", WriteOptions::replace()),
        ("/mnt/failing/new", WriteOptions::create_new()),
    ] {
        let mut writer = alice.write_with(path, options).await?;
        writer.write(pattern(3_000_000)).await?;
        writers.push(writer);
    }
    ensure!(shell(&root, FAIL).await?.0, "it does not fail");
    for writer in writers {
        let error = refusal("finishing on a failed disk", writer.finish().await)?;
        ensure!(
            error.reason() == Some(ErrorReason::ReadOnlyFileSystem),
            "{error:?}"
        );
    }
    ensure!(alice.read("/mnt/failing/file").await? == b"old");
    let (recovered, names) = shell(&root, RECOVER).await?;
    ensure!(
        recovered && names == "file\nlost+found\n",
        "after a new start there is {names:?}"
    );
    ensure!(alice.read("/mnt/failing/file").await? == b"old");
    // Whoever read lets go of the file a moment after the answer.
    eventually("it is in use no more", PATIENCE, async || {
        Ok(shell(&root, REMOVE).await?.0)
    })
    .await
}

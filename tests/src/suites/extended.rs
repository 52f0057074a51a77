//! Digests, and extended attributes.

use anyhow::{Context, ensure};
use guestline_client::{ChecksumAlgorithm, ErrorReason, WriteOptions};

use super::{expect_errno, pattern, put, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

const ENODATA: i32 = 61;
const EACCES: i32 = 13;

cases![
    a_checksum_is_what_the_guests_own_tool_prints,
    a_checksum_is_of_the_part_that_was_asked_for,
    what_cannot_be_read_has_no_checksum,
    extended_attributes_come_back_or_the_file_system_says_that_it_has_none,
    attributes_of_roots_file_are_refused_by_the_kernel,
    a_cut_upload_goes_on_where_it_ended,
];

async fn a_checksum_is_what_the_guests_own_tool_prints(target: &Target) -> Outcome {
    let alice = target.user("alice");
    alice.files().write("sum", pattern(3_000_001)).await?;
    let sum = alice
        .files()
        .checksum("sum", ChecksumAlgorithm::Sha256)
        .await?;
    let (ran, line) = shell(&alice, "sha256sum sum").await?;
    ensure!(ran, "the guest has no sha256sum");
    let hex: String = sum
        .digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(line.starts_with(&hex), "{hex} is not {line}");
    ensure!(sum.size == 3_000_001);
    Ok(())
}

async fn a_checksum_is_of_the_part_that_was_asked_for(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let content = pattern(100_000);
    files.write("whole", content.clone()).await?;
    files.write("part", content[7..50_007].to_vec()).await?;
    for algorithm in [ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Blake3] {
        let part = files.checksum("part", algorithm).await?;
        let same = files
            .checksum_range("whole", algorithm, 7, Some(50_000))
            .await?;
        ensure!(part == same && part.size == 50_000, "{algorithm:?}");
        ensure!(part != files.checksum("whole", algorithm).await?);
    }
    Ok(())
}

async fn what_cannot_be_read_has_no_checksum(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let sha256 = ChecksumAlgorithm::Sha256;
    expect_errno(
        "root's",
        files.checksum("/etc/shadow", sha256).await,
        EACCES,
    )?;
    let error = refusal("a device", files.checksum("/dev/zero", sha256).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::SpecialFile),
        "{error:?}"
    );
    Ok(())
}

async fn extended_attributes_come_back_or_the_file_system_says_that_it_has_none(
    target: &Target,
) -> Outcome {
    let files = target.user("alice").files();
    let root = target.user("root").files();
    // Each file system has them or has none, as its own kernel says; the answer must fit both ways to ask.
    for path in ["/home/alice/tagged", "/var/tmp/guestline-tagged"] {
        files.write(path, "").await?;
        let value = b"a\0b\xff".to_vec();
        match files
            .set_extended_attribute(path, "user.origin", value.clone())
            .await
        {
            Ok(()) => {
                let all = files.extended_attributes(path).await?;
                ensure!(
                    all.contains(&("user.origin".into(), value.clone())),
                    "{path} has {all:?}"
                );
                let got = root.extended_attribute(path, "user.origin").await?;
                ensure!(got == Some(value), "{path}: {got:?}");
                let none = files.extended_attribute(path, "user.none").await?;
                ensure!(none.is_none(), "{path}: {none:?}");
                files.remove_extended_attribute(path, "user.origin").await?;
                let again = files.remove_extended_attribute(path, "user.origin").await;
                expect_errno("removing it twice", again, ENODATA)?;
            }
            Err(error) => {
                ensure!(
                    error.reason() == Some(ErrorReason::Unsupported),
                    "{path}: {error:?}"
                );
                let asked = files.extended_attribute(path, "user.origin").await;
                let error = refusal("asking", asked).context("on a file system without")?;
                ensure!(error.reason() == Some(ErrorReason::Unsupported));
            }
        }
        files.remove_file(path).await?;
    }
    Ok(())
}

async fn attributes_of_roots_file_are_refused_by_the_kernel(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let set = files
        .set_extended_attribute("/etc/passwd", "user.mine", "x")
        .await;
    let error = refusal("tagging /etc/passwd", set)?;
    let reason = error.reason();
    ensure!(
        matches!(
            reason,
            Some(ErrorReason::PermissionDenied | ErrorReason::Unsupported)
        ),
        "{error:?}"
    );
    let set = files
        .set_extended_attribute("/home/alice", "trusted.mine", "x")
        .await;
    let error = refusal("a trusted attribute", set)?;
    ensure!(
        error.is_permission_denied() || error.reason() == Some(ErrorReason::Unsupported),
        "{error:?}"
    );
    Ok(())
}

async fn a_cut_upload_goes_on_where_it_ended(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let content = pattern(3_000_000);
    // Cut after some of it arrived: in this mode that stays.
    let mut writer = files.write_with("cut", WriteOptions::at(0)).await?;
    writer.write(content[..1_500_000].to_vec()).await?;
    let arrived = || async { Ok(files.stat("cut").await.is_ok_and(|it| it.size == 1_500_000)) };
    eventually("it arrived", PATIENCE, arrived).await?;
    drop(writer);
    let sha256 = ChecksumAlgorithm::Sha256;
    let there = files.checksum("cut", sha256).await?;
    files.write("whole", content.clone()).await?;
    let prefix = files.checksum_range("whole", sha256, 0, Some(there.size));
    ensure!(there == prefix.await?, "what arrived is another");
    let rest = content[1_500_000..].to_vec();
    put(&files, "cut", rest, WriteOptions::at(there.size)).await?;
    ensure!(files.read("cut").await? == content);
    Ok(())
}

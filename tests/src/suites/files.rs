//! Files: bytes that arrive, errors that say why, and writes that are whole or not at all.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use anyhow::{Context, ensure};
use guestline_client::{ErrorReason, RenameMode, WriteOptions};
use tokio::time::timeout;

use super::{expect_errno, pattern, put, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

const ENOENT: i32 = 2;
const EISDIR: i32 = 21;
const ENOTDIR: i32 = 20;
const EEXIST: i32 = 17;

cases![
    what_is_written_is_read,
    a_megabyte_file_goes_both_ways_whole,
    bad_paths_are_typed_errors,
    special_files_are_refused_at_once: [6],
    proc_files_read_as_cat_prints_them: [7],
    names_that_are_not_utf8_come_back_byte_for_byte: [8],
    a_vanished_writer_leaves_the_old_content_and_no_trace: [9],
    a_full_disk_leaves_the_old_content: [9],
    the_modes_of_writing_do_what_they_say,
    a_listing_tells_what_it_may_not_enter,
    five_thousand_entries_are_listed_in_pages,
    renames_replace_refuse_and_exchange,
    a_recursive_removal_does_not_follow_links,
    a_copy_is_equal_and_a_link_stays_one,
];

async fn what_is_written_is_read(target: &Target) -> Outcome {
    for name in ["root", "alice", "bob"] {
        let files = target.user(name).files();
        files
            .write("hello.txt", format!("hello from {name}"))
            .await?;
        ensure!(files.read("hello.txt").await? == format!("hello from {name}").as_bytes());
        ensure!(files.stat("hello.txt").await?.mode == 0o644);
        ensure!(
            files
                .read_dir("/")
                .await?
                .iter()
                .any(|entry| entry.name() == Path::new("proc"))
        );
    }
    Ok(())
}

async fn a_megabyte_file_goes_both_ways_whole(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let content = pattern(10_000_019);
    files.write("big", content.clone()).await?;
    ensure!(
        files.read("big").await? == content,
        "the bytes that came back are others"
    );
    let mut part = files.open_range("big", 5_000_000, Some(1_000)).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    ensure!(
        bytes == content[5_000_000..5_001_000],
        "the range is another"
    );
    files.remove_file("big").await?;
    Ok(())
}

async fn bad_paths_are_typed_errors(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    expect_errno("reading nothing", files.read("no/such").await, ENOENT)?;
    expect_errno("reading a folder", files.read("/etc").await, EISDIR)?;
    expect_errno(
        "listing a file",
        files.read_dir("/etc/passwd").await,
        ENOTDIR,
    )?;
    expect_errno(
        "writing a folder",
        files.write("/home/alice", "x").await,
        EISDIR,
    )?;
    expect_errno(
        "writing without a parent",
        files.write("no/parent", "x").await,
        ENOENT,
    )?;
    for path in ["", "a\0b"] {
        let error = refusal("an impossible path", files.read(path).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{path:?}: {error:?}"
        );
    }
    Ok(())
}

/// For what can be known before opening.
async fn special_files_are_refused_at_once(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -f fifo; mkfifo fifo").await?;
    for path in ["fifo", "/dev/zero", "/dev/tty"] {
        let read = timeout(PATIENCE, alice.files().read(path)).await;
        let error = refusal(path, read.context("it waits for somebody")?)?;
        ensure!(
            error.reason() == Some(ErrorReason::SpecialFile),
            "reading {path}: {error:?}"
        );
        let files = alice.files();
        let write = timeout(PATIENCE, put(&files, path, "x", WriteOptions::truncate())).await;
        let error = refusal(path, write.context("it waits for somebody")?)?;
        ensure!(
            error.reason() == Some(ErrorReason::SpecialFile),
            "writing {path}: {error:?}"
        );
    }
    Ok(())
}

async fn proc_files_read_as_cat_prints_them(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for path in [
        "/proc/version",
        "/proc/cpuinfo",
        "/proc/filesystems",
        "/proc/sys/kernel/ostype",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        let (there, printed) = shell(&alice, &format!("cat {path}")).await?;
        if path.starts_with("/proc") || there {
            // Some frequencies of cpuinfo change from look to look.
            let ours = String::from_utf8(alice.files().read(path).await?)?;
            let stable = |text: &str| {
                text.lines()
                    .filter(|line| !line.contains("MHz"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            ensure!(
                !ours.is_empty() && stable(&ours) == stable(&printed),
                "{path} differs"
            );
        }
    }
    Ok(())
}

async fn names_that_are_not_utf8_come_back_byte_for_byte(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let _ = files.remove_dir_all("odd").await;
    files.create_dir("odd").await?;
    let name = OsStr::from_bytes(b"a\xff\n\x1b[31m b");
    files.write(Path::new("odd").join(name), "x").await?;
    let names: Vec<_> = files
        .read_dir("odd")
        .await?
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    ensure!(names == [Path::new(name)], "{names:?}");
    Ok(())
}

/// For a client that goes away.
async fn a_vanished_writer_leaves_the_old_content_and_no_trace(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let _ = files.remove_dir_all("torn").await;
    files.create_dir("torn").await?;
    files.write("torn/file", "old").await?;
    for (path, options) in [
        ("torn/file", WriteOptions::replace()),
        ("torn/new", WriteOptions::create_new()),
    ] {
        let mut writer = files.write_with(path, options).await?;
        writer.write(pattern(3_000_000)).await?;
        // Gone without `finish`.
        drop(writer);
    }
    eventually("the folder is as before", PATIENCE, || async {
        let entries = files.read_dir("torn").await?;
        let names: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
        Ok(names == [Path::new("file")])
    })
    .await?;
    ensure!(
        files.read("torn/file").await? == b"old",
        "the old content is gone"
    );
    Ok(())
}

/// For ENOSPC.
async fn a_full_disk_leaves_the_old_content(target: &Target) -> Outcome {
    let root = target.user("root");
    let (mounted, _) = shell(
        &root,
        "mkdir -p /root/small && mount -t tmpfs -o size=1m tmpfs /root/small",
    )
    .await?;
    ensure!(mounted, "cannot mount a small file system");
    let result = async {
        let files = root.files();
        files.write("/root/small/file", "old").await?;
        let error = refusal(
            "writing 4 MiB into 1 MiB",
            files.write("/root/small/file", pattern(4 << 20)).await,
        )?;
        ensure!(error.reason() == Some(ErrorReason::NoSpace), "{error:?}");
        ensure!(
            files.read("/root/small/file").await? == b"old",
            "the old content is gone"
        );
        let names = files.read_dir("/root/small").await?.len();
        ensure!(names == 1, "{names} names are left");
        // What was taken up is given back.
        files
            .write("/root/small/file", pattern(512 << 10))
            .await
            .context("writing what fits")?;
        Ok(())
    };
    let result = result.await;
    shell(&root, "umount /root/small").await?;
    result
}

async fn the_modes_of_writing_do_what_they_say(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    let _ = files.remove_dir_all("modes").await;
    files.create_dir("modes").await?;
    put(&files, "modes/f", "0123456789", WriteOptions::create_new()).await?;
    expect_errno(
        "creating it again",
        put(&files, "modes/f", "x", WriteOptions::create_new()).await,
        EEXIST,
    )?;
    put(&files, "modes/f", "ab", WriteOptions::at(4)).await?;
    ensure!(files.read("modes/f").await? == b"0123ab6789");
    put(&files, "modes/f", "!", WriteOptions::append()).await?;
    ensure!(files.read("modes/f").await? == b"0123ab6789!");
    put(&files, "modes/f", "short", WriteOptions::truncate()).await?;
    ensure!(files.read("modes/f").await? == b"short");
    shell(
        &target.user("alice"),
        "chmod 640 modes/f; ln -sf f modes/link",
    )
    .await?;
    files.write("modes/link", "through").await?;
    ensure!(
        files.lstat("modes/link").await?.is_symlink(),
        "the link was replaced"
    );
    ensure!(files.read("modes/f").await? == b"through");
    ensure!(
        files.stat("modes/f").await?.mode == 0o640,
        "the mode was not kept"
    );
    put(
        &files,
        "modes/a/b/c",
        "deep",
        WriteOptions::replace().parents(true),
    )
    .await?;
    ensure!(files.read("modes/a/b/c").await? == b"deep");
    Ok(())
}

async fn a_listing_tells_what_it_may_not_enter(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&target.user("root"), "rm -rf /var/tmp/tree; mkdir -p /var/tmp/tree/open /var/tmp/tree/shut; chmod 700 /var/tmp/tree/shut; touch /var/tmp/tree/open/f").await?;
    let mut stream = alice.files().list("/var/tmp/tree", 3).await?;
    let (mut seen, mut refused) = (Vec::new(), Vec::new());
    while let Some(entry) = stream.next().await? {
        match &entry.error {
            Some(error) => refused.push((entry.path, error.errno())),
            None => seen.push(entry.path),
        }
    }
    ensure!(
        seen.contains(&"open/f".into()) && seen.contains(&"open".into()),
        "{seen:?}"
    );
    ensure!(refused == [("shut".into(), Some(13))], "{refused:?}");
    Ok(())
}

async fn five_thousand_entries_are_listed_in_pages(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf many; mkdir many; cd many; i=0; while [ $i -lt 5000 ]; do : > f$i; i=$((i+1)); done").await?;
    let entries = alice.files().read_dir("many").await?;
    let distinct: std::collections::BTreeSet<_> = entries.iter().map(|entry| &entry.path).collect();
    ensure!(
        distinct.len() == 5000 && entries.len() == 5000,
        "{} entries",
        entries.len()
    );
    alice.files().remove_dir_all("many").await?;
    Ok(())
}

async fn renames_replace_refuse_and_exchange(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    files.write("a", "A").await?;
    files.write("b", "B").await?;
    expect_errno(
        "renaming onto b",
        files.rename("a", "b", RenameMode::NoReplace).await,
        EEXIST,
    )?;
    files.rename("a", "b", RenameMode::Exchange).await?;
    ensure!(files.read("a").await? == b"B" && files.read("b").await? == b"A");
    files.rename("a", "b", RenameMode::Replace).await?;
    ensure!(files.read("b").await? == b"B");
    expect_errno("reading a", files.read("a").await, ENOENT)
}

async fn a_recursive_removal_does_not_follow_links(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf out tree; mkdir -p out tree/sub; echo keep > out/file; ln -s ../out tree/link; ln -s ../../out tree/sub/link").await?;
    alice.files().remove_dir_all("tree").await?;
    ensure!(
        alice.files().read("out/file").await? == b"keep\n",
        "it followed a link"
    );
    expect_errno("stat of the tree", alice.files().stat("tree").await, ENOENT)
}

async fn a_copy_is_equal_and_a_link_stays_one(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf from to; mkdir -p from/sub; echo one > from/f; echo two > from/sub/g; ln -s f from/link").await?;
    let options = guestline_client::CopyOptions {
        recursive: true,
        ..Default::default()
    };
    let copied = alice.files().copy("from", "to", options).await?;
    ensure!(copied.files == 2 && copied.bytes == 8, "{copied:?}");
    let (same, difference) = shell(&alice, "diff -r from to && readlink to/link").await?;
    ensure!(same && difference == "f\n", "{difference}");
    Ok(())
}

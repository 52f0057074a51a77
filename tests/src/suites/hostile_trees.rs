//! Tar streams that mean harm, and those that end too early: nothing outside of the directory is touched.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::ensure;
use guestline_client::{
    Error, ErrorReason, Files, FolderError, LeftOut, Observer, OutsideLinks, PushOptions, Pushed,
};
use tar::{EntryType, Header};

use super::{expect_errno, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;

cases![
    what_would_leave_the_directory_is_refused_and_nothing_is_touched,
    no_link_is_written_through,
    a_cut_push_leaves_whole_files_and_no_trace_of_the_one_under_way,
    owners_are_given_where_the_kernel_lets_the_user,
    a_guests_link_out_is_not_made_on_the_host,
];

async fn what_would_leave_the_directory_is_refused_and_nothing_is_touched(
    target: &Target,
) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf in out; mkdir in out; echo kept > out/file").await?;
    let file = |name: &str| stream(&[(EntryType::Regular, name, "", "evil")]);
    let of = |kind, name: &str, link: &str| stream(&[(kind, name, link, "")]);
    for (what, stream) in [
        ("..", file("../out/file")),
        (".. later", file("a/../../out/file")),
        ("absolute", file("/home/alice/out/file")),
        ("a link out", of(EntryType::Symlink, "l", "../out")),
        (
            "an absolute link",
            of(EntryType::Symlink, "l", "/home/alice/out"),
        ),
        ("a hard link out", of(EntryType::Link, "h", "../out/file")),
        ("a device", of(EntryType::Char, "null", "")),
        ("a FIFO", of(EntryType::Fifo, "fifo", "")),
        ("no tar stream", vec![b'x'; 4096]),
    ] {
        let error = refusal(what, push(&alice.files(), "in", &stream).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{what}: {error:?}"
        );
        let (kept, _) = shell(&alice, "test \"$(cat out/file)\" = kept && test $(ls out | wc -l) = 1 && test ! -e in/l -a ! -e in/h").await?;
        ensure!(kept, "{what} touched something");
    }
    let nowhere = push(&alice.files(), "/root/in", &file("f")).await;
    expect_errno("pushing into root's", nowhere, EACCES)?;
    expect_errno(
        "pushing into nothing",
        push(&alice.files(), "none", &file("f")).await,
        ENOENT,
    )
}

async fn no_link_is_written_through(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let root = target.user("root");
    shell(
        &alice,
        "rm -rf in out; mkdir in out; echo kept > out/file; ln -s ../out in/mine",
    )
    .await?;
    let through = [
        (EntryType::Symlink, "theirs", "../out", ""),
        (EntryType::Regular, "theirs/file", "", "evil"),
    ];
    let mine = [(EntryType::Regular, "mine/file", "", "evil")];
    // Root is whom a user would want to trick.
    for stream in [stream(&through), stream(&mine)] {
        let options = PushOptions {
            outside_links: true,
            ..PushOptions::default()
        };
        let pushed = push_with(&root.files(), "/home/alice/in", &stream, options).await;
        let error = refusal("writing through a link", pushed)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{error:?}"
        );
    }
    ensure!(alice.files().read("out/file").await? == b"kept\n");
    Ok(())
}

async fn a_cut_push_leaves_whole_files_and_no_trace_of_the_one_under_way(
    target: &Target,
) -> Outcome {
    let alice = target.user("alice");
    let files = alice.files();
    let big = "x".repeat(3_000_000);
    let entries = [
        (EntryType::Regular, "one", "", "whole"),
        (EntryType::Regular, "two", "", big.as_str()),
    ];
    let whole = stream(&entries);
    shell(&alice, "rm -rf in; mkdir in").await?;
    // Cut by a client that goes on to say that it was whole.
    for cut in [2_000_000, whole.len() - 1024] {
        let error = refusal("a cut stream", push(&files, "in", &whole[..cut]).await)?;
        ensure!(error.reason() == Some(ErrorReason::Incomplete), "{error:?}");
    }
    ensure!(files.read("in/one").await? == b"whole");
    ensure!(files.stat("in/two").await?.size == 3_000_000);
    files.remove_file("in/two").await?;
    files.remove_file("in/one").await?;
    // Cut by a client that vanishes.
    let mut writer = files.push("in", PushOptions::default()).await?;
    writer.write(whole[..2_000_000].to_vec()).await?;
    let is_there = || async { Ok(files.stat("in/one").await.is_ok()) };
    eventually("the first file is there", PATIENCE, is_there).await?;
    drop(writer);
    let idle = || async { Ok(shell(&alice, "ls -A in").await?.1 == "one\n") };
    eventually("one whole file is all there is", PATIENCE, idle).await
}

async fn owners_are_given_where_the_kernel_lets_the_user(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    shell(&alice, "rm -rf in; mkdir in").await?;
    let stream = stream(&[(EntryType::Regular, "bobs", "", "x")]);
    let owners = PushOptions {
        owners: true,
        ..PushOptions::default()
    };
    let path = "/home/alice/in";
    let refused = push_with(&alice.files(), path, &stream, owners).await;
    expect_errno("alice giving it to bob", refused, EPERM)?;
    push(&alice.files(), path, &stream).await?;
    ensure!(alice.files().stat("in/bobs").await?.uid == 1000);
    push_with(&root.files(), path, &stream, owners).await?;
    let stat = root.files().stat("/home/alice/in/bobs").await?;
    ensure!(stat.uid == 1001 && stat.gid == 1001, "{stat:?}");
    Ok(())
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<PathBuf>>>);

impl Observer for Told {
    fn left_out(&mut self, path: &Path, _why: LeftOut) {
        if let Ok(mut paths) = self.0.lock() {
            paths.push(path.into());
        }
    }
}

async fn a_guests_link_out_is_not_made_on_the_host(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(
        &alice,
        "rm -rf p; mkdir p; ln -s /etc/passwd p/out; echo x > p/f",
    )
    .await?;
    let top = tempfile::tempdir()?;
    let told = Told::default();
    let (files, leave_out) = (alice.files(), OutsideLinks::LeaveOut);
    files
        .pull_to("p", top.path(), leave_out, told.clone())
        .await?;
    ensure!(fs::symlink_metadata(top.path().join("out")).is_err());
    ensure!(fs::read(top.path().join("f"))? == b"x\n");
    ensure!(
        told.0
            .lock()
            .is_ok_and(|paths| *paths == [PathBuf::from("out")])
    );
    let refused = files
        .pull_to("p", top.path(), OutsideLinks::Refuse, ())
        .await;
    let error = refusal("a link out", refused)?;
    ensure!(
        matches!(error, Error::Folder(FolderError::Unsafe { .. })),
        "{error:?}"
    );
    Ok(())
}

fn stream(entries: &[(EntryType, &str, &str, &str)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (kind, name, link, data) in entries {
        let mut header = Header::new_ustar();
        // Not through the crate's own checks: these names are meant to be wrong.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(1001);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        stream.extend_from_slice(header.as_bytes());
        stream.extend_from_slice(data.as_bytes());
        stream.resize(stream.len().next_multiple_of(512), 0);
    }
    stream.resize(stream.len() + 1024, 0);
    stream
}

async fn push(files: &Files, path: &str, stream: &[u8]) -> Result<Pushed, Error> {
    push_with(files, path, stream, PushOptions::default()).await
}

async fn push_with(
    files: &Files,
    path: &str,
    stream: &[u8],
    options: PushOptions,
) -> Result<Pushed, Error> {
    let mut writer = files.push(path, options).await?;
    writer.write(stream.to_vec()).await?;
    writer.finish().await
}

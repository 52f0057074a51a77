//! Directories as tar streams: what comes back is what was sent.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use guestline_archive::umask;
use guestline_client::{Error, FileType, Files, OutsideLinks, PullOptions, Pulled, PushOptions};

use super::{expect_errno, refusal, shell};
use crate::{cases, runner::Outcome, target::Target};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;

cases![
    a_tree_of_thousands_comes_back_as_it_was,
    twenty_thousand_files_go_both_ways_in_one_stream,
    what_a_pull_gives_is_what_tar_reads,
    a_pull_that_cannot_read_everything_fails,
    a_pull_tells_what_it_left_out,
    a_pull_stops_at_the_border_of_a_file_system_where_that_is_asked,
];

/// Everything of a tree that must come back.
fn describe(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let stat = fs::symlink_metadata(&path)?;
            let content = if stat.is_symlink() {
                format!("{:?}", fs::read_link(&path)?)
            } else if stat.is_dir() {
                folders.push(path.clone());
                String::new()
            } else {
                let sum = fs::read(&path)?
                    .iter()
                    .fold(7_u64, |sum, &byte| sum.wrapping_mul(31) ^ u64::from(byte));
                format!("{} {sum} x{}", stat.len(), stat.nlink())
            };
            let name = path.strip_prefix(root)?;
            let (mode, time, nanos) = (stat.mode(), stat.mtime(), stat.mtime_nsec());
            all.insert(format!("{name:?} {mode:o} {time}.{nanos} {content}"));
        }
    }
    Ok(all)
}

/// Of a hundred small files a folder.
fn make_tree(root: &Path, folders: u32) -> anyhow::Result<()> {
    for folder in 0..folders {
        let folder = root.join(format!("folder-{folder}/below"));
        fs::create_dir_all(&folder)?;
        for file in 0..100 {
            let path = folder.join(format!("file-{file}"));
            fs::write(&path, "x".repeat(file * 13))?;
            // What comes back here has no bit of our umask.
            let mode = (0o400 + file as u32) & !umask();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        fs::hard_link(folder.join("file-5"), folder.join("same"))?;
        symlink("../below/file-1", folder.join("link"))?;
    }
    fs::write(root.join(OsStr::from_bytes(b"\xff not\nUTF-8")), "odd")?;
    let sparse = File::create(root.join("sparse"))?;
    sparse.set_len(64 << 20)?;
    sparse.write_all_at(b"middle", 32 << 20)?;
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    sparse.set_modified(old)?;
    let folder = File::open(root.join("folder-7"))?;
    folder.set_modified(old)?;
    fs::set_permissions(root.join("folder-8"), fs::Permissions::from_mode(0o500))?;
    Ok(())
}

async fn a_tree_of_thousands_comes_back_as_it_was(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let top = tempfile::tempdir()?;
    let (from, to) = (top.path().join("from"), top.path().join("a/to"));
    make_tree(&from, 30)?;
    let options = PushOptions {
        parents: true,
        ..PushOptions::default()
    };
    let files = alice.files();
    let pushed = files.push_from(&from, "trees/tree", options, ()).await?;
    ensure!(pushed.entries > 3000, "{pushed:?}");
    let stat = files.stat("trees/tree/sparse").await?;
    ensure!(stat.uid == 1000 && stat.size == 64 << 20);
    ensure!(stat.blocks < 1000, "the hole has {} blocks", stat.blocks);
    let refuse = OutsideLinks::Refuse;
    let pulled = files.pull_to("trees/tree", &to, refuse, ()).await?;
    ensure!(pulled.entries == pushed.entries && pulled.bytes == pushed.bytes);
    let (before, after) = (describe(&from)?, describe(&to)?);
    let lost: Vec<_> = before.difference(&after).take(5).collect();
    ensure!(before == after, "not as they were: {lost:#?}");
    // Once more over what is there: the same again, a directory without the write bit too.
    files.push_from(&from, "trees/tree", options, ()).await?;
    files.pull_to("trees/tree", &to, refuse, ()).await?;
    ensure!(describe(&to)? == before, "the second copy is another");
    shell(&alice, "chmod -R u+w trees; rm -rf trees").await?;
    Ok(())
}

async fn twenty_thousand_files_go_both_ways_in_one_stream(target: &Target) -> Outcome {
    let bob = target.user("bob");
    let top = tempfile::tempdir()?;
    let (from, to) = (top.path().join("from"), top.path().join("to"));
    make_tree(&from, 200)?;
    let files = bob.files();
    let options = PushOptions {
        parents: true,
        ..PushOptions::default()
    };
    let pushed = files.push_from(&from, "twenty", options, ()).await?;
    ensure!(pushed.entries > 20_000, "{pushed:?}");
    files
        .pull_to("twenty", &to, OutsideLinks::Refuse, ())
        .await?;
    ensure!(describe(&from)? == describe(&to)?, "not as they were");
    shell(&bob, "chmod -R u+w twenty; rm -rf twenty").await?;
    Ok(())
}

async fn what_a_pull_gives_is_what_tar_reads(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(
        &alice,
        "rm -rf p; mkdir -p p/sub; echo one > p/f; ln p/f p/sub/g; ln -s ../f p/sub/l",
    )
    .await?;
    let names = names(&pull(&alice.files(), "p").await?.0)?;
    ensure!(
        names.contains("./") && names.contains("sub/l") && names.len() == 5,
        "{names:?}"
    );
    let (single, _) = pull(&alice.files(), "p/f").await?;
    ensure!(self::names(&single)?.into_iter().eq(["f"]));
    let missing = alice.files().pull("p/none", PullOptions::default()).await;
    let missing = match missing {
        Ok(mut stream) => stream.next().await.map(drop),
        Err(error) => Err(error),
    };
    expect_errno("pulling nothing", missing, ENOENT)
}

async fn a_pull_that_cannot_read_everything_fails(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf p; mkdir p; echo x > p/shut; chmod 0 p/shut").await?;
    let error = refusal("the pull", pull(&alice.files(), "p").await)?;
    let Error::Operation { path, errno, .. } = &error else {
        return Err(error.into());
    };
    ensure!(
        *errno == EACCES && path.ends_with("p/shut"),
        "{errno} {path:?}"
    );
    Ok(())
}

async fn a_pull_tells_what_it_left_out(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf p; mkdir p; mkfifo p/fifo; echo x > p/f").await?;
    let (stream, left_out) = pull(&alice.files(), "p").await?;
    ensure!(
        left_out == [("fifo".into(), FileType::Fifo)],
        "{left_out:?}"
    );
    ensure!(names(&stream)?.len() == 2);
    Ok(())
}

/// Headers and data for bob to own, and the mark of the end.
async fn a_pull_stops_at_the_border_of_a_file_system_where_that_is_asked(
    target: &Target,
) -> Outcome {
    let root = target.user("root");
    let mount = "mkdir -p /root/border/m && mount -t tmpfs tmpfs /root/border/m && echo x > /root/border/m/f";
    ensure!(shell(&root, mount).await?.0, "cannot mount");
    for (one_file_system, expected) in [(false, vec!["./", "m/", "m/f"]), (true, vec!["./", "m/"])]
    {
        let options = PullOptions { one_file_system };
        let (stream, _) = pull_with(&root.files(), "/root/border", options).await?;
        let names = names(&stream)?;
        ensure!(names.iter().eq(expected.iter()), "{names:?}");
    }
    shell(&root, "umount /root/border/m").await?;
    Ok(())
}

async fn pull(files: &Files, path: &str) -> Result<(Vec<u8>, Vec<(PathBuf, FileType)>), Error> {
    pull_with(files, path, PullOptions::default()).await
}

/// The whole stream, and what was left out of it.
async fn pull_with(
    files: &Files,
    path: &str,
    options: PullOptions,
) -> Result<(Vec<u8>, Vec<(PathBuf, FileType)>), Error> {
    let mut stream = files.pull(path, options).await?;
    let (mut bytes, mut left_out) = (Vec::new(), Vec::new());
    while let Some(pulled) = stream.next().await? {
        match pulled {
            Pulled::Data(data) => bytes.extend_from_slice(&data),
            Pulled::LeftOut { path, file_type } => left_out.push((path, file_type)),
            _ => {}
        }
    }
    Ok((bytes, left_out))
}

/// The names in a stream, as the crate `tar` reads them.
fn names(stream: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    let mut archive = tar::Archive::new(stream);
    let mut names = BTreeSet::new();
    for entry in archive.entries().context("no tar stream")? {
        names.insert(String::from_utf8_lossy(&entry?.path_bytes()).into_owned());
    }
    Ok(names)
}

//! Our answer beside the kernel's own: each operation on each path of a corpus, once through the agent as that user, and
//! once by ordinary system calls (guest/kernel.rs) of a process that a tool of the guest's own made that user. On two trees
//! that are the same at first: the errnos must be equal, and what became of the trees.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use guestline_client::{
    ChecksumAlgorithm, Error, Files, RenameMode, SetAttributes, Vm, WriteOptions,
};

use super::put;
use crate::{cases, runner::Outcome, target::Target};

cases![
    every_operation_on_every_path_is_answered_as_the_kernel_answers: [1],
    what_tools_of_the_guest_say_is_what_we_say: [1],
];

const KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel"));
const PROGRAM: &str = "/home/kernel";

/// Ours and the kernel's.
const TREES: [&str; 2] = ["/home/ours", "/home/kerns"];

/// Operations that change the same things come one after another on one pair of trees.
const OPERATIONS: [&[&str]; 5] = [
    &[
        "stat",
        "lstat",
        "read",
        "digest",
        "list",
        "readlink",
        "attributes",
        "space",
    ],
    &["append", "at", "cut", "times", "attribute", "truncate"],
    &["chgrp", "chown", "lchown", "chmod"],
    &["create", "mkdir", "symlink", "link", "rename"],
    &["remove"],
];

const OWNERS: [&str; 3] = ["root", "alice", "bob"];
const FILE_MODES: [&str; 8] = [
    "0000", "0400", "0600", "0644", "0606", "0660", "0666", "4755",
];
const FOLDER_MODES: [&str; 7] = ["0000", "0700", "0711", "0744", "0755", "0777", "1777"];

/// One tree, at `$1`; few processes, since each takes long under emulation.
const PLANT: &str = r#"
cd /; umask 0
umount $1/bound $1/fixed 2>/dev/null
rm -rf $1; mkdir -p $1; cd $1
mkdir flat hard soft bound fixed
for owner in root alice bob; do
  for mode in 0000 0400 0600 0644 0606 0660 0666 4755; do
    echo content > flat/$owner-$mode
    ln -s ../flat/$owner-$mode soft/$owner-$mode
    hard="$hard flat/$owner-$mode"
  done
  for mode in 0000 0700 0711 0744 0755 0777 1777; do
    mkdir $owner-$mode $owner-$mode/sub
    echo content > $owner-$mode/owners
    echo content > $owner-$mode/alices
  done
  chown -R $owner:$owner $owner-* flat/$owner-*
done
ln $hard hard
chown alice:alice */alices
for mode in 0000 0400 0600 0644 0606 0660 0666 4755; do chmod $mode flat/*-$mode; done
chmod 644 */owners */alices
for mode in 0000 0700 0711 0744 0755 0777 1777; do chmod $mode [rab]*-$mode; done
ln -s nowhere soft/dangling; ln -s loop soft/loop; ln -s /root soft/away; ln -s ../alice-0700 soft/alices
ln -s alices alice-0755/link; ln -s owners bob-1777/link; ln -s owners root-1777/link
chmod 755 flat hard soft
mount --bind flat bound && mount --bind flat fixed && mount -o remount,bind,ro fixed fixed
"#;

/// What became of a tree, without its own name and the times. Less what is bound there, which comes once already.
const REAP: &str = "cd $1 && find . -path ./bound -prune -o -path ./fixed -prune -o \
    -exec stat -c '%n %a %u %g %h %F' {} + | sort && find . -type f ! -path './bound/*' ! -path './fixed/*' \
    -exec md5sum {} + | sort";

/// Paths in a tree, and of the guest.
fn paths(tree: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for owner in OWNERS {
        for mode in FILE_MODES {
            for way in [
                "flat",
                "soft",
                "hard",
                "bound",
                "fixed",
                "alice-0711/../flat",
            ] {
                paths.push(format!("{way}/{owner}-{mode}"));
            }
        }
        for mode in FOLDER_MODES {
            let folder = format!("{owner}-{mode}");
            for name in [
                "",
                "/",
                "/owners",
                "/alices",
                "/new",
                "/sub",
                "/../flat/alice-0600",
            ] {
                paths.push(format!("{folder}{name}"));
            }
        }
    }
    for odd in [
        "soft/dangling",
        "soft/loop",
        "soft/away",
        "soft/away/x",
        "soft/alices",
        "soft/alices/owners",
        "alice-0755/link",
        "bob-1777/link",
        "root-1777/link",
        "flat/alice-0644/below",
        "flat/bob-0600/below",
        "flat/missing/below",
        "flat/missing",
        ".",
        "..",
        "flat/..",
    ] {
        paths.push(odd.into());
    }
    let mut paths: Vec<String> = paths.iter().map(|path| format!("{tree}/{path}")).collect();
    for owner in OWNERS {
        paths.push(format!("/proc/self/root{tree}/flat/{owner}-0600"));
        paths.push(format!("/proc/self/cwd/..{tree}/flat/{owner}-0600"));
        paths.push(format!("/proc/1/root{tree}/flat/{owner}-0644"));
    }
    paths.push(format!("{tree}/{}", "x".repeat(256)));
    paths.push(format!("{tree}/flat/{}", "y/".repeat(2100)));
    paths
}

/// Only looked at: changing them would change the guest.
const OF_THE_GUEST: [&str; 16] = [
    "/etc/shadow",
    "/root",
    "/root/x",
    "/proc/1/environ",
    "/proc/1/maps",
    "/proc/1/exe",
    "/proc/1/root",
    "/proc/1/cwd",
    "/proc/1/fd",
    "/proc/1/fd/0",
    "/proc/1/task/1/fd",
    "/proc/1/map_files",
    "/proc/kcore",
    "/proc/sys/kernel/ostype",
    "/proc/self/status",
    "/sys/kernel/debug",
];

/// Our answer, as that user.
async fn ours(files: &Files, uid: u32, operation: &str, path: &str) -> Result<(), Error> {
    let beside = |ending: &str| format!("{path}{ending}");
    let attributes = SetAttributes::default;
    let change =
        |set: SetAttributes| async move { files.set_attributes(path, set).await.map(drop) };
    match operation {
        "read" => files.read(path).await.map(drop),
        "digest" => {
            let algorithm = ChecksumAlgorithm::Sha256;
            files.checksum(path, algorithm).await.map(drop)
        }
        "stat" => files.stat(path).await.map(drop),
        "lstat" => files.lstat(path).await.map(drop),
        "list" => files.read_dir(path).await.map(drop),
        "readlink" => files.read_link(path).await.map(drop),
        "attributes" => files.extended_attributes(path).await.map(drop),
        "attribute" => files.set_extended_attribute(path, "user.corpus", "x").await,
        "space" => files.space(path).await.map(drop),
        "truncate" => put(files, path, "changed", WriteOptions::truncate()).await,
        "append" => put(files, path, "more", WriteOptions::append()).await,
        "at" => put(files, path, "part", WriteOptions::at(0)).await,
        "create" => put(files, path, "new", WriteOptions::create_new()).await,
        "mkdir" => files.create_dir(path).await,
        "remove" => files.remove_file(path).await,
        "rename" => {
            files
                .rename(path, beside(".new"), RenameMode::Replace)
                .await
        }
        "link" => files.hard_link(path, beside(".hard")).await,
        "symlink" => files.symlink("/etc/passwd", beside(".soft")).await,
        "chmod" => {
            change(SetAttributes {
                mode: Some(0o4755),
                ..attributes()
            })
            .await
        }
        "chown" => {
            change(SetAttributes {
                uid: Some(uid),
                ..attributes()
            })
            .await
        }
        "lchown" => {
            change(SetAttributes {
                uid: Some(uid),
                no_follow: true,
                ..attributes()
            })
            .await
        }
        "chgrp" => {
            change(SetAttributes {
                gid: Some(uid),
                ..attributes()
            })
            .await
        }
        "cut" => {
            change(SetAttributes {
                size: Some(1),
                ..attributes()
            })
            .await
        }
        "times" => {
            let modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(3));
            change(SetAttributes {
                accessed: modified,
                modified,
                ..attributes()
            })
            .await
        }
        other => unreachable!("no operation {other}"),
    }
}

/// Each path's errno, 0 for a success, by our answers.
async fn answers(vm: &Vm, uid: u32, operation: &str, paths: &[String]) -> anyhow::Result<Vec<i32>> {
    let files = vm.files();
    let mut errnos = Vec::new();
    for path in paths {
        let errno = match ours(&files, uid, operation, path).await {
            Ok(()) => 0,
            Err(error) => {
                let told = format!("{operation} {path}: an error without an errno: {error:?}");
                error.errno().context(told)?
            }
        };
        errnos.push(errno);
    }
    Ok(errnos)
}

/// The same by the kernel, for a process of that user.
async fn kernels_answers(
    root: &Vm,
    user: &str,
    operation: &str,
    paths: &[String],
) -> anyhow::Result<Vec<i32>> {
    let mut lines = String::new();
    for path in paths {
        writeln!(lines, "{operation} {path}")?;
    }
    let become_user = format!(
        "cd /; if command -v runuser >/dev/null; then exec runuser -u {user} {PROGRAM}; \
         else exec su {user} -c {PROGRAM}; fi"
    );
    let output = root.shell(become_user).input(lines).output().await?;
    let told = String::from_utf8(output.stdout)?;
    let errnos: Result<Vec<i32>, _> = told.lines().map(str::parse).collect();
    let errnos = errnos?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        errnos.len() == paths.len(),
        "{operation}: {} answers: {errors}",
        errnos.len()
    );
    Ok(errnos)
}

async fn run(root: &Vm, script: &str, tree: &str) -> anyhow::Result<String> {
    let output = root
        .command("sh")
        .args(["-c", script, "sh", tree])
        .output()
        .await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{:?} for {tree}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

async fn every_operation_on_every_path_is_answered_as_the_kernel_answers(
    target: &Target,
) -> Outcome {
    let root = target.user("root");
    let executable = WriteOptions::replace().permissions(0o755);
    put(&root.files(), PROGRAM, KERNEL, executable).await?;
    // Emulation takes a second for what takes ten milliseconds here.
    let step = if target.is_machine() { 7 } else { 1 };
    let (mut differences, mut asked, mut refused, mut from) = (Vec::new(), 0, 0, 0);
    let mut left: BTreeSet<String> = paths(TREES[0]).into_iter().collect();
    for (user, uid) in [("alice", 1000), ("bob", 1001)] {
        let vm = target.user(user);
        for operations in OPERATIONS {
            for tree in TREES {
                run(&root, PLANT, tree).await?;
            }
            for operation in operations {
                let [mut paths, mut kernels] = TREES.map(|tree| {
                    let paths = paths(tree).into_iter().skip(from % step);
                    paths.step_by(step).collect::<Vec<_>>()
                });
                // From another one in each, so that each path has its turn.
                from += 1;
                left.retain(|path| !paths.contains(path));
                if operations[0] == "stat" {
                    paths.extend(OF_THE_GUEST.map(String::from));
                    kernels.extend(OF_THE_GUEST.map(String::from));
                }
                let ours = answers(&vm, uid, operation, &paths).await?;
                let kernels = kernels_answers(&root, user, operation, &kernels).await?;
                for ((path, ours), kernels) in paths.iter().zip(ours).zip(kernels) {
                    asked += 1;
                    refused += u32::from(kernels != 0);
                    if ours != kernels {
                        let told = format!("{user} {operation} {path:.100}: {ours}, not {kernels}");
                        differences.push(told);
                    }
                }
            }
            let [ours, kernels] = TREES.map(|tree| run(&root, REAP, tree));
            let (ours, kernels) = (ours.await?, kernels.await?);
            for (ours, kernels) in ours.lines().zip(kernels.lines()) {
                if ours != kernels {
                    differences.push(format!(
                        "{user} after {operations:?}: {ours}, not {kernels}"
                    ));
                    break;
                }
            }
        }
    }
    for tree in TREES {
        run(&root, "umount $1/bound $1/fixed; rm -r $1", tree).await?;
    }
    ensure!(
        differences.is_empty(),
        "{} of {asked} answers differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    ensure!(
        refused > asked / 5 && refused < asked * 4 / 5,
        "{refused} of {asked} are refusals"
    );
    ensure!(left.is_empty(), "nobody asked for {left:?}");
    println!("    {asked} answers are the kernel's, {refused} of them refusals");
    Ok(())
}

/// cat(1) and ls(1) as that user, and their words for an errno.
async fn what_tools_of_the_guest_say_is_what_we_say(target: &Target) -> Outcome {
    let root = target.user("root");
    let [tree, _] = TREES;
    run(&root, PLANT, tree).await?;
    let files = target.user("bob").files();
    let mut refusals = 0;
    for (tool, operation) in [("cat", "read"), ("ls -d", "lstat")] {
        let mut paths = paths(tree);
        // Each takes three processes.
        paths.retain(|path| path.len() < 100);
        let paths: Vec<String> = paths.into_iter().step_by(5).collect();
        let line = format!(
            "while read -r path; do LC_ALL=C {tool} \"$path\" 2>&1 >/dev/null | tail -n 1 | grep . || echo; done"
        );
        let become_user = format!(
            "if command -v runuser >/dev/null; then exec runuser -u bob -- sh -c '{line}'; \
             else exec su bob -c '{line}'; fi"
        );
        let output = root
            .shell(become_user)
            .input(paths.join("\n") + "\n")
            .output()
            .await?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(said.lines().count() == paths.len(), "{tool}: {said}");
        for (path, said) in paths.iter().zip(said.lines()) {
            let errno = match ours(&files, 1001, operation, path).await {
                Ok(()) => 0,
                Err(error) => error.errno().context("an errno")?,
            };
            let words = match errno {
                0 => "",
                2 => "No such file or directory",
                13 => "Permission denied",
                20 => "Not a directory",
                21 => "Is a directory",
                40 => "ymbolic links",
                other => anyhow::bail!("{operation} {path}: errno {other}"),
            };
            refusals += u32::from(errno != 0);
            let same = if errno == 0 {
                said.is_empty()
            } else {
                said.contains(words)
            };
            ensure!(same, "{tool} {path} says {said:?}, we say {errno}");
        }
    }
    ensure!(refusals > 20, "only {refusals} refusals");
    run(&root, "umount $1/bound $1/fixed; rm -r $1", tree)
        .await
        .map(drop)
}

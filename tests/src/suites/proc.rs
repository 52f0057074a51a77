//! What /proc shows of the agent: nothing that is another's, by whatever path.

use anyhow::{Context, ensure};
use guestline_client::{Vm, WriteOptions};

use super::{
    expect_errno,
    isolation::{field, listener_of},
    put, refusal, shell,
};
use crate::{cases, runner::Outcome, target::Target};

const EACCES: i32 = 13;
const EPERM: i32 = 1;

cases![
    nothing_of_root_or_bob_is_within_alices_reach: [2, 11],
    a_workers_own_links_lead_no_further_than_its_user_may_go: [2],
    a_file_that_somebody_has_open_is_not_within_reach: [3],
];

/// For the listener, root's worker and bob's, and for their threads.
async fn nothing_of_root_or_bob_is_within_alices_reach(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let bob = target.user("bob");
    let others = [
        listener_of(&root).await?,
        worker_of(&root).await?,
        worker_of(&bob).await?,
    ];
    let files = alice.files();
    for pid in others {
        for process in [format!("/proc/{pid}"), format!("/proc/{pid}/task/{pid}")] {
            for name in [
                "mem",
                "environ",
                "maps",
                "smaps",
                "auxv",
                "pagemap",
                "syscall",
                "io",
                "fd/0",
                "fdinfo/0",
                "root/etc/passwd",
            ] {
                let path = format!("{process}/{name}");
                refused(&path, files.read(&path).await)?;
                // What root does not see either shows nothing.
                let seen = root.files().lstat(&path).await;
                ensure!(seen.is_ok(), "{path} is not there: {seen:?}");
            }
            for name in ["exe", "root", "cwd", "fd/0", "ns/mnt"] {
                let path = format!("{process}/{name}");
                refused(&path, files.read_link(&path).await)?;
            }
            for name in ["fd", "fdinfo", "root", "cwd"] {
                let path = format!("{process}/{name}");
                refused(&path, files.read_dir(&path).await)?;
            }
            for name in [
                "mem",
                "oom_score_adj",
                "comm",
                "root/etc/passwd",
                "root/tmp/x",
            ] {
                let path = format!("{process}/{name}");
                let write = put(&files, &path, "0", WriteOptions::truncate()).await;
                refused(&format!("writing {path}"), write)?;
            }
        }
        refused(&pid, files.read_dir(format!("/proc/{pid}/map_files")).await)?;
        for signal in ["STOP", "KILL", "CONT"] {
            ensure!(
                !shell(&alice, &format!("kill -{signal} {pid}")).await?.0,
                "alice sent SIG{signal} to {pid}"
            );
        }
    }
    Ok(())
}

/// For /proc/self and /proc/thread-self, which are the worker's own.
async fn a_workers_own_links_lead_no_further_than_its_user_may_go(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let options = WriteOptions::replace().permissions(0o600);
    put(&root.files(), "/root/kept", "roots", options).await?;
    let files = alice.files();
    for own in ["/proc/self", "/proc/thread-self"] {
        let status = String::from_utf8(files.read(format!("{own}/status")).await?)?;
        ensure!(
            field(&status, "Uid:")? == "1000 1000 1000 1000"
                && field(&status, "CapPrm:")? == "0000000000000000",
            "{status}"
        );
        let owner = files.stat(format!("{own}/environ")).await?.uid;
        ensure!(owner == 1000, "{own} is {owner}'s");
        ensure!(
            files.read(format!("{own}/environ")).await?.is_empty(),
            "{own}/environ has something"
        );
        for way in ["root", "cwd"] {
            let path = format!("{own}/{way}/root/kept");
            refused(&path, files.read(&path).await)?;
            refused(
                &path,
                put(&files, &path, "x", WriteOptions::replace()).await,
            )?;
        }
        // Its memory is alice's own, as of any of her processes; there is nothing at 0.
        refusal("reading memory", files.read(format!("{own}/mem")).await)?;
        let maps = String::from_utf8(files.read(format!("{own}/maps")).await?)?;
        ensure!(
            maps.contains("[stack]") && !maps.contains("memfd"),
            "{maps}"
        );
        let mut seen = 0;
        for entry in files.read_dir(format!("{own}/fd")).await? {
            let path = format!("{own}/fd/{}", entry.name().display());
            // A thread of its own, and what it had open, may be gone by now.
            let Ok(link) = files.read_link(&path).await else {
                continue;
            };
            let link = link.to_string_lossy().into_owned();
            let harmless = ["socket:", "anon_inode:", "pipe:", "/dev/null", "/proc/"];
            ensure!(
                harmless.iter().any(|prefix| link.starts_with(prefix)),
                "a worker holds {link}"
            );
            seen += 1;
        }
        ensure!(seen > 3, "only {seen} descriptors were seen");
    }
    ensure!(root.files().read("/root/kept").await? == b"roots");
    Ok(())
}

/// Anybody may read and write the file, were it not for the folder that it is in.
async fn a_file_that_somebody_has_open_is_not_within_reach(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let line = "umask 0; mkdir -p -m 700 /root/shut && head -c 8000000 /dev/zero > /root/shut/open";
    ensure!(shell(&root, line).await?.0, "cannot prepare the file");
    ensure!(root.files().stat("/root/shut/open").await?.mode == 0o666);
    // Far from its end while its reader waits.
    let reading = root.files().open("/root/shut/open").await?;
    let worker = worker_of(&root).await?;
    let folder = format!("/proc/{worker}/fd");
    let mut held = None;
    for entry in root.files().read_dir(&folder).await? {
        let path = format!("{folder}/{}", entry.name().display());
        let link = root.files().read_link(&path).await;
        if link.is_ok_and(|link| link.ends_with("shut/open")) {
            held = Some(path);
        }
    }
    let held = held.context("root's worker does not hold the file: the case shows nothing")?;
    let files = alice.files();
    for path in [held.as_str(), "/root/shut/open"] {
        refused(path, files.read(path).await)?;
        refused(path, put(&files, path, "x", WriteOptions::truncate()).await)?;
        refused(path, put(&files, path, "x", WriteOptions::replace()).await)?;
        refused(path, files.stat(path).await)?;
        refused(path, files.read_link(path).await)?;
        refused(path, files.hard_link(path, "mine").await)?;
    }
    drop(reading);
    Ok(())
}

/// EACCES, or EPERM where the kernel says so.
fn refused<T>(what: &str, result: Result<T, guestline_client::Error>) -> Outcome {
    let error = refusal(what, result)?;
    if error.errno() == Some(EPERM) {
        return Ok(());
    }
    expect_errno::<()>(what, Err(error), EACCES)
}

/// The pid of the worker that serves this handle.
pub(super) async fn worker_of(vm: &Vm) -> anyhow::Result<String> {
    let status = String::from_utf8(vm.files().read("/proc/self/status").await?)?;
    field(&status, "Pid:")
}

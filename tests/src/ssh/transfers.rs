//! SFTP and scp: what goes over is what was there, as the user, whatever it is called.

use std::{fs, os::unix::ffi::OsStrExt};

use anyhow::ensure;
use serde_json::Value;

use super::{
    Scene,
    client::ended,
    files::{make_many, make_tree, same},
};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway::World,
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    a_tree_goes_there_and_back_with_scp: [40],
    the_old_scp_works_through_its_command: [40],
    sftp_does_what_a_batch_says: [40],
    a_transfer_that_broke_off_is_resumed,
    names_that_are_no_text_are_kept,
    a_folder_of_thousands_is_listed,
    ten_thousand_files_go_there_and_back_in_a_batch: [40],
    the_guests_kernel_decides_about_files: [40],
    a_large_file_comes_back_as_it_was,
    what_is_done_to_files_is_in_the_audit_log: [39],
];

impl Scene {
    /// Runs a batch of sftp's as alice, to its end.
    async fn sftp(&self, batch: &str) -> anyhow::Result<super::Ended> {
        let path = self.clients.folder().join("batch");
        fs::write(&path, batch)?;
        let mut sftp = self.clients.command("sftp");
        sftp.current_dir(self.clients.folder())
            .args(["-o", &format!("User={}", self.name("alice")), "-b"])
            .arg(path)
            .arg("gateway");
        ended(sftp).await
    }

    async fn scp(&self, options: &[&str], from: &str, to: &str) -> anyhow::Result<super::Ended> {
        let mut scp = self.clients.command("scp");
        scp.current_dir(self.clients.folder())
            .args(["-o", &format!("User={}", self.name("alice"))])
            .args(options)
            .args([from, to]);
        ended(scp).await
    }
}

async fn a_tree_goes_there_and_back_with_scp(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let folder = scene.clients.folder();
    make_tree(&folder.join("tree"))?;
    scene.scp(&["-r", "-p"], "tree", "gateway:").await?.ok()?;
    let listed = scene
        .ssh("alice", "stat -c '%U %a' tree/script; tree/script")
        .await?;
    ensure!(listed.ok()? == "alice 750\nhi\n");
    scene
        .scp(&["-r", "-p"], "gateway:tree", "back")
        .await?
        .ok()?;
    same(&folder.join("tree"), &folder.join("back")).await?;
    let times = |name: &str| -> anyhow::Result<u64> {
        let modified = fs::metadata(folder.join(name).join("sub/text"))?.modified()?;
        Ok(modified.duration_since(std::time::UNIX_EPOCH)?.as_secs())
    };
    ensure!(times("tree")? == times("back")?);
    Ok(())
}

async fn the_old_scp_works_through_its_command(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let folder = scene.clients.folder();
    make_tree(&folder.join("tree"))?;
    scene
        .scp(&["-O", "-r"], "tree", "gateway:old")
        .await?
        .ok()?;
    scene
        .scp(&["-O", "-r"], "gateway:old", "back")
        .await?
        .ok()?;
    same(&folder.join("tree"), &folder.join("back")).await
}

async fn sftp_does_what_a_batch_says(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    fs::write(scene.clients.folder().join("here"), "content\n")?;
    let batch = "pwd\nmkdir d\ncd d\nput here there\nrename there moved\nsymlink moved link\nln moved hard\n\
        chmod 640 moved\nls -l\ndf .\nget link copy\nrm hard\nrm link\nls\ncd ..\n";
    let printed = scene.sftp(batch).await?.ok()?;
    ensure!(
        printed.contains("Remote working directory: /home/alice"),
        "{printed}"
    );
    ensure!(
        printed.contains("-rw-r-----   2 1000     1000            8"),
        "{printed}"
    );
    ensure!(printed.contains("lrwxrwxrwx"), "{printed}");
    ensure!(fs::read_to_string(scene.clients.folder().join("copy"))? == "content\n");
    let left = scene.ssh("alice", "ls d; stat -c %a d/moved").await?.ok()?;
    ensure!(left == "moved\n640\n", "{left}");
    for (batch, told) in [
        ("get none", "not found"),
        ("rmdir d", "Failure"),
        ("mkdir d", "Failure"),
        ("rm d", "Failure"),
        ("cd d/moved", "not a directory"),
    ] {
        let failed = scene.sftp(batch).await?;
        ensure!(
            failed.code == Some(1) && failed.stderr.contains(told),
            "{batch}: {failed:?}"
        );
    }
    scene.sftp("rm d/moved\nrmdir d\n").await?.ok()?;
    ensure!(scene.ssh("alice", "ls").await?.ok()?.is_empty());
    Ok(())
}

async fn a_transfer_that_broke_off_is_resumed(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let folder = scene.clients.folder();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|it| (it / 3) as u8).collect();
    fs::write(folder.join("whole"), &bytes)?;
    fs::write(folder.join("back"), &bytes[..1_234_567])?;
    fs::write(folder.join("part"), &bytes[..2_222_222])?;
    scene
        .sftp("put part whole\nreput whole whole\nreget whole back\n")
        .await?
        .ok()?;
    ensure!(fs::read(folder.join("back"))? == bytes);
    Ok(())
}

async fn names_that_are_no_text_are_kept(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    scene
        .ssh(
            "alice",
            r#"mkdir d; printf x > "d/$(printf 'a\377b')"; printf y > 'd/ü n\w'"#,
        )
        .await?
        .ok()?;
    scene.scp(&["-r"], "gateway:d", "back").await?.ok()?;
    let folder = scene.clients.folder().join("back");
    let mut names: Vec<Vec<u8>> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.file_name().as_bytes().to_vec()))
        .collect::<anyhow::Result<_>>()?;
    names.sort_unstable();
    ensure!(
        names == [b"a\xffb".to_vec(), "ü n\\w".as_bytes().to_vec()],
        "{names:?}"
    );
    scene.scp(&["-r"], "back", "gateway:again").await?.ok()?;
    let same = scene.ssh("alice", "diff -r d again && echo same").await?;
    ensure!(same.ok()? == "same\n");
    Ok(())
}

async fn a_folder_of_thousands_is_listed(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    scene
        .ssh("alice", "mkdir many; cd many; seq 1 5000 | xargs touch")
        .await?
        .ok()?;
    let printed = scene.sftp("ls -1 many\n").await?.ok()?;
    ensure!(
        printed
            .lines()
            .filter(|line| line.starts_with("many/"))
            .count()
            == 5000
    );
    Ok(())
}

async fn ten_thousand_files_go_there_and_back_in_a_batch(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let folder = scene.clients.folder();
    make_many(&folder.join("many"), 10_000)?;
    let batch = "put -r many there\nget -r there back\n";
    scene.sftp(batch).await?.ok()?;
    let counted = scene.ssh("alice", "find there -type f | wc -l").await?;
    ensure!(counted.ok()?.trim() == "10000");
    same(&folder.join("many"), &folder.join("back")).await
}

async fn the_guests_kernel_decides_about_files(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    scene.ssh("bob", "echo secret > diary").await?.ok()?;
    scene
        .ssh("root", "echo secret > /root/diary; chmod 600 /root/diary")
        .await?
        .ok()?;
    for batch in [
        "get /home/bob/diary",
        "get /root/diary",
        "put config /home/bob/config",
        "rename config /home/bob/x",
        "ls /root",
        "chmod 777 /home/bob",
    ] {
        let refused = scene.sftp(batch).await?;
        ensure!(refused.code == Some(1), "{batch}: {refused:?}");
        ensure!(!refused.stdout.contains("secret"), "{batch}: {refused:?}");
    }
    // A handle is opened by the user, not by the path's first look.
    scene.ssh("alice", "ln -s /root/diary link").await?.ok()?;
    ensure!(scene.sftp("get link").await?.code == Some(1));
    Ok(())
}

async fn a_large_file_comes_back_as_it_was(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let folder = scene.clients.folder();
    let mut sh = tokio::process::Command::new("sh");
    sh.current_dir(folder)
        .args(["-c", "yes guestline | head -c 100000000 > large"]);
    ended(sh).await?.ok()?;
    scene.scp(&[], "large", "gateway:large").await?.ok()?;
    // Small packets, few or many on their way.
    scene
        .scp(
            &["-X", "nrequests=3", "-X", "buffer=4096"],
            "gateway:large",
            "slow",
        )
        .await?
        .ok()?;
    scene.scp(&[], "gateway:large", "back").await?.ok()?;
    for copy in ["slow", "back"] {
        let mut cmp = tokio::process::Command::new("cmp");
        cmp.current_dir(folder).args(["large", copy]);
        ended(cmp).await?.ok()?;
    }
    Ok(())
}

async fn what_is_done_to_files_is_in_the_audit_log(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    fs::write(scene.clients.folder().join("here"), "content\n")?;
    scene
        .sftp("put here there\nget there back\nrename there moved\nrm moved\n")
        .await?
        .ok()?;
    let log = || -> anyhow::Result<String> {
        let path = scene.gateway.folder().join("audit.jsonl");
        Ok(fs::read_to_string(path)?)
    };
    let is_end = |line: &str| line.contains(r#""verb":"ssh""#) && line.contains(r#""phase":"end""#);
    eventually("the connection's end is logged", PATIENCE, async || {
        Ok(log()?.lines().any(is_end))
    })
    .await?;
    let log = log()?;
    let events: Vec<Value> = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let ends = |verb: &str, subject: &str| {
        let fits = |event: &&Value| {
            event["verb"] == verb
                && event["phase"] == "end"
                && event["subject"]
                    .as_str()
                    .is_some_and(|it| it.starts_with(subject))
        };
        events.iter().filter(fits).collect::<Vec<_>>()
    };
    let written = ends("write-file", "/home/alice/there");
    ensure!(
        written.len() == 1 && written[0]["bytesIn"] == 8,
        "{written:?}"
    );
    let read = ends("read-file", "/home/alice/there");
    ensure!(
        read.len() == 1 && read[0]["bytesOut"] == 8 && read[0]["result"] == "ok",
        "{read:?}"
    );
    ensure!(
        ends(
            "write-file",
            "rename /home/alice/there -> /home/alice/moved"
        )
        .len()
            == 1
    );
    ensure!(ends("write-file", "remove /home/alice/moved").len() == 1);
    Ok(())
}

//! Debian's own programs, through a gateway, in a real debian machine with rsync, git and Python: `guestline-tests ssh-machine
//! GATEWAY ENDPOINT ANSIBLE [FILTER]`, where ANSIBLE is the folder with Ansible's programs.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::process::Command;

use super::{
    Scene,
    client::ended,
    files::{make_many, make_tree, same, sha256},
};
use crate::{
    eventually::eventually,
    gateway,
    runner::{Outcome, Tally},
    target::Target,
};

/// The longest that a case may take, under emulation.
const CASE_DEADLINE: Duration = Duration::from_secs(900);

/// For a server in the guest to be up.
const UP_LIMIT: Duration = Duration::from_secs(120);

/// Where the web server of a case listens in the guest.
const WEB_PORT: u16 = 8080;

/// Files of sftp's batch; the suite without machines has ten times as many.
const MANY: usize = 1000;

type Run = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |stage| Box::pin($name(stage)))),*]
    };
}

const CASES: &[(&str, Run)] = cases![
    a_terminal_and_exit_codes_are_the_guests,
    many_sessions_share_one_connection,
    a_tree_goes_there_and_back_with_both_scps,
    a_batch_of_sftps_moves_many_files,
    rsync_makes_equal_and_sends_what_changed,
    git_pushes_and_clones,
    a_web_server_in_the_guest_is_a_port_here,
    megabytes_go_each_way_through_a_pipe,
    ansible_pings_copies_and_commands,
];

/// What the cases share: one gateway, one machine, alice with a token and a key.
struct Stage {
    scene: Scene,
    /// Ansible's programs.
    ansible: PathBuf,
}

/// The names that are printed of all cases.
pub fn names() -> impl Iterator<Item = String> {
    CASES.iter().map(|(name, _)| format!("ssh-machine::{name}"))
}

/// Runs the cases whose name contains `filter`.
pub async fn run(
    machine: Target,
    program: &Path,
    ansible: &Path,
    filter: &str,
) -> anyhow::Result<Tally> {
    let mut world = gateway::world_of(machine, program, "sqlite")?;
    let scene = Scene::new(&mut world, json!(["alice"])).await?;
    let key = scene.clients.key("ed25519").await?;
    scene.register_key(&key).await?;
    scene
        .clients
        .use_key(&key, &format!("{}+alice", scene.vm))?;
    let stage = Stage {
        scene,
        ansible: ansible.into(),
    };
    let mut tally = Tally::default();
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(filter)) {
        let begun = std::time::Instant::now();
        let failure = match tokio::time::timeout(CASE_DEADLINE, case(&stage)).await {
            Ok(Ok(())) => {
                tally.passed += 1;
                let took = begun.elapsed().as_secs_f64();
                println!("test ssh-machine::{name} ... ok ({took:.1} s)");
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("did not end within {CASE_DEADLINE:?}"),
        };
        tally.failed += 1;
        println!("test ssh-machine::{name} ... FAILED\n    {failure}");
    }
    Ok(tally)
}

impl Stage {
    /// Runs a line as alice, to its end.
    async fn ssh(&self, line: &str) -> anyhow::Result<String> {
        let mut ssh = self.scene.clients.command("ssh");
        ssh.args(["gateway", line]);
        ended(ssh).await?.ok()
    }

    /// A folder of a case's own, here.
    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.scene.clients.folder().join(name);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// A program that runs `ssh` by itself, in a folder.
    fn over_ssh(&self, program: &str, folder: &Path) -> Command {
        let ssh = format!("ssh -F {}", self.scene.clients.config().display());
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env("RSYNC_RSH", &ssh)
            .env("GIT_SSH_COMMAND", &ssh)
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs such a program to its end.
    async fn done(&self, folder: &Path, words: &[&str]) -> anyhow::Result<String> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = self.over_ssh(program, folder);
        command.args(arguments);
        ended(command).await?.ok()
    }
}

async fn a_terminal_and_exit_codes_are_the_guests(stage: &Stage) -> Outcome {
    let clients = &stage.scene.clients;
    for code in [0, 1, 7, 255] {
        let mut ssh = clients.command("ssh");
        ssh.args(["gateway", &format!("echo out; echo err >&2; exit {code}")]);
        let it = ended(ssh).await?;
        ensure!(
            it.code == Some(code) && it.stdout == "out\n" && it.stderr == "err\n",
            "{it:?}"
        );
    }
    let mut ssh = clients.command("ssh");
    ssh.args(["-tt", "gateway", "tty; id -un; hostname; exit 3"]);
    let it = ended(ssh).await?;
    ensure!(
        it.code == Some(3) && it.stdout.starts_with("/dev/pts/") && it.stdout.contains("alice"),
        "{it:?}"
    );
    Ok(())
}

async fn many_sessions_share_one_connection(stage: &Stage) -> Outcome {
    let clients = &stage.scene.clients;
    let through = |line: String| {
        let mut ssh = clients.command("ssh");
        ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]);
        ssh.args(["gateway".to_owned(), line]);
        ended(ssh)
    };
    through("true".into()).await?.ok()?;
    let logins = || -> anyhow::Result<usize> {
        let log = fs::read_to_string(stage.scene.gateway.folder().join("audit.jsonl"))?;
        // Ends of earlier ones may come at any time.
        let is_login =
            |line: &&str| line.contains(r#""verb":"ssh""#) && line.contains(r#""phase":"start""#);
        Ok(log.lines().filter(is_login).count())
    };
    let before = logins()?;
    let line = |number: usize| format!("head -c 200000 /dev/zero | tr '\\0' x; echo {number}");
    let printed = futures_util::future::try_join_all((0..12).map(|it| through(line(it)))).await?;
    for (number, printed) in printed.into_iter().enumerate() {
        let printed = printed.ok()?;
        let end = format!("x{number}\n");
        ensure!(printed.len() == 199_999 + end.len() && printed.ends_with(&end));
    }
    ensure!(logins()? == before, "it was not one connection");
    let mut exit = clients.command("ssh");
    exit.args(["-O", "exit", "gateway"]);
    ended(exit).await?.ok().map(drop)
}

async fn a_tree_goes_there_and_back_with_both_scps(stage: &Stage) -> Outcome {
    let folder = stage.folder("scp")?;
    make_tree(&folder.join("tree"))?;
    for (protocol, there, back) in [("-O", "old", "old-back"), ("-s", "new", "new-back")] {
        for (from, to) in [
            ("tree", format!("gateway:scp-{there}")),
            (format!("gateway:scp-{there}").as_str(), back.to_owned()),
        ] {
            let mut scp = stage.scene.clients.command("scp");
            scp.current_dir(&folder)
                .args([protocol, "-r", "-p", from, &to]);
            ended(scp).await?.ok()?;
        }
        same(&folder.join("tree"), &folder.join(back)).await?;
        let mode = stage
            .ssh(&format!("stat -c '%U %a' scp-{there}/script"))
            .await?;
        ensure!(mode == "alice 750\n", "{mode}");
    }
    Ok(())
}

async fn a_batch_of_sftps_moves_many_files(stage: &Stage) -> Outcome {
    let folder = stage.folder("sftp")?;
    make_many(&folder.join("many"), MANY)?;
    fs::write(
        folder.join("batch"),
        "put -r many sftp-many\nget -r sftp-many back\n",
    )?;
    let mut sftp = stage.scene.clients.command("sftp");
    sftp.current_dir(&folder).args(["-b", "batch", "gateway"]);
    ended(sftp).await?.ok()?;
    let counted = stage.ssh("find sftp-many -type f | wc -l").await?;
    ensure!(counted.trim() == MANY.to_string(), "{counted}");
    same(&folder.join("many"), &folder.join("back")).await
}

async fn rsync_makes_equal_and_sends_what_changed(stage: &Stage) -> Outcome {
    let folder = stage.folder("rsync")?;
    let tree = folder.join("tree");
    make_tree(&tree)?;
    make_many(&tree.join("many"), 200)?;
    std::os::unix::fs::symlink("sub/text", tree.join("link"))?;
    let there = "gateway:rsync/";
    stage
        .done(&folder, &["rsync", "-a", "tree/", there])
        .await?;
    let compare = ["rsync", "-a", "-n", "-i", "-c", "--delete", "tree/", there];
    let differs = stage.done(&folder, &compare).await?;
    ensure!(differs.is_empty(), "{differs}");
    fs::write(tree.join("sub/text"), "changed\n")?;
    fs::remove_dir_all(tree.join("many"))?;
    let update = ["rsync", "-a", "-i", "--delete", "tree/", there];
    let sent = stage.done(&folder, &update).await?;
    let changed = |line: &&str| line.starts_with("<f") && line.ends_with("sub/text");
    let sent_files = sent.lines().filter(|line| line.starts_with("<f")).count();
    ensure!(
        sent.lines().any(|line| changed(&line)) && sent_files == 1,
        "{sent}"
    );
    stage.done(&folder, &["rsync", "-a", there, "back"]).await?;
    ensure!(fs::read_link(folder.join("back/link"))? == Path::new("sub/text"));
    same(&tree, &folder.join("back")).await
}

async fn git_pushes_and_clones(stage: &Stage) -> Outcome {
    let folder = stage.folder("git")?;
    stage.ssh("git init --quiet --bare repository.git").await?;
    let work = folder.join("work");
    make_tree(&work)?;
    let git = async |folder: &Path, words: &[&str]| {
        let who = ["-c", "user.name=Alice", "-c", "user.email=alice@localhost"];
        stage
            .done(folder, &[&["git"], &who[..], words].concat())
            .await
    };
    git(&work, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(&work, &["add", "."]).await?;
    git(&work, &["commit", "--quiet", "--message=first"]).await?;
    git(
        &work,
        &["push", "--quiet", "gateway:repository.git", "main"],
    )
    .await?;
    // The other form of the address.
    let address = "ssh://gateway/home/alice/repository.git";
    git(
        &folder,
        &["clone", "--quiet", "--branch=main", address, "clone"],
    )
    .await?;
    let clone = folder.join("clone");
    fs::write(clone.join("second"), "second\n")?;
    git(&clone, &["add", "."]).await?;
    git(&clone, &["commit", "--quiet", "--message=second"]).await?;
    git(&clone, &["push", "--quiet", "origin", "main"]).await?;
    git(
        &work,
        &["pull", "--quiet", "gateway:repository.git", "main"],
    )
    .await?;
    ensure!(fs::read_to_string(work.join("second"))? == "second\n");
    let there = stage.ssh("git -C repository.git rev-parse main").await?;
    ensure!(there == git(&work, &["rev-parse", "HEAD"]).await?);
    Ok(())
}

async fn a_web_server_in_the_guest_is_a_port_here(stage: &Stage) -> Outcome {
    stage
        .ssh("mkdir web; cd web; seq 1 200000 > large; echo hello > small")
        .await?;
    let mut serve = stage.scene.clients.command("ssh");
    let line = format!("cd web; exec python3 -m http.server --bind 127.0.0.1 {WEB_PORT}");
    serve.args(["gateway", &line]).stderr(Stdio::null());
    let _server = serve.stdout(Stdio::null()).spawn()?;
    let local = super::forwarding::free_port()?;
    let mut ssh = stage.scene.clients.command("ssh");
    ssh.args([
        "-N",
        "-L",
        &format!("{local}:localhost:{WEB_PORT}"),
        "gateway",
    ])
    .stderr(Stdio::null());
    let _tunnel = ssh.spawn()?;
    super::forwarding::is_open(local).await?;
    let http = reqwest::Client::new();
    let get = async |name: &str| -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{local}/{name}");
        let answer = http.get(url).send().await?.error_for_status()?;
        Ok(answer.text().await?)
    };
    eventually("the server is up", UP_LIMIT, async || {
        Ok(get("small").await.is_ok_and(|text| text == "hello\n"))
    })
    .await?;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let all = futures_util::future::try_join_all((0..8).map(|_| get("large"))).await?;
    ensure!(all.iter().all(|text| *text == expected));
    let listed = get("").await?;
    ensure!(
        listed.contains("large") && listed.contains("small"),
        "{listed}"
    );
    Ok(())
}

async fn megabytes_go_each_way_through_a_pipe(stage: &Stage) -> Outcome {
    let source = "yes guestline | head -c 32000000";
    let ssh = format!(
        "ssh -F {} -o RekeyLimit=8M gateway",
        stage.scene.clients.config().display()
    );
    let here = sha256(&format!("{source} | sha256sum")).await?;
    let there = sha256(&format!("{source} | {ssh} sha256sum")).await?;
    let back = sha256(&format!("{ssh} '{source}' | sha256sum")).await?;
    ensure!(here == there && here == back, "{here} {there} {back}");
    Ok(())
}

async fn ansible_pings_copies_and_commands(stage: &Stage) -> Outcome {
    let folder = stage.folder("ansible")?;
    let bytes: Vec<u8> = (0..200_000_u32).map(|it| (it / 5) as u8).collect();
    fs::write(folder.join("file"), bytes)?;
    let inventory = format!(
        "gateway ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='-F {}'\n",
        stage.scene.clients.config().display()
    );
    fs::write(folder.join("inventory"), inventory)?;
    fs::write(folder.join("ansible.cfg"), "")?;
    let program = stage.ansible.join("ansible");
    let ansible = async |module: &str, arguments: &str| -> anyhow::Result<String> {
        let mut command = stage.over_ssh(&program.to_string_lossy(), &folder);
        command
            .args(["all", "-i", "inventory", "-m", module, "-a", arguments])
            // Nothing of who runs the tests, and nothing left with them.
            .env("ANSIBLE_HOME", folder.join("home"))
            .env("ANSIBLE_LOCAL_TEMP", folder.join("temporary"))
            .env("ANSIBLE_CONFIG", folder.join("ansible.cfg"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("LC_ALL", "C.UTF-8");
        ended(command).await?.ok()
    };
    let pong = ansible("ping", "").await?;
    ensure!(pong.contains("\"ping\": \"pong\""), "{pong}");
    let copied = ansible("copy", "src=file dest=ansible-file mode=0640").await?;
    ensure!(copied.contains("CHANGED"), "{copied}");
    let again = ansible("copy", "src=file dest=ansible-file mode=0640").await?;
    ensure!(again.contains("SUCCESS"), "{again}");
    let printed = ansible("command", "stat -c '%U %a %s' ansible-file").await?;
    ensure!(printed.contains("alice 640 200000"), "{printed}");
    Ok(())
}

//! `cargo xtask demo`: boots a machine and shows, by the `guestline` command that a person would type, what works in it.
//! Each line is checked; the demo fails if one is not true. Then the same through a gateway (`sessions.rs`).

mod sessions;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use guestline_client::{Endpoint, Vm};
use guestline_machine::{ImageKind, Machine, MachineSpec, Setup};

use crate::{
    agent,
    vm::READY_LIMIT,
    workspace::{cargo, check, target},
};

/// Bytes that go each way.
const TRANSFER: usize = 64 << 20;

/// Calls that a median is taken of.
const CALLS: usize = 50;

pub(crate) fn demo(keep: bool) -> anyhow::Result<()> {
    check(cargo().args(["build", "--quiet", "--package", "guestline-client"]))?;
    let name = if keep {
        "demo".to_owned()
    } else {
        format!("demo-{}", std::process::id())
    };
    let spec = MachineSpec {
        name,
        image: ImageKind::Minimal,
        users: vec!["alice".into(), "bob".into()],
        memory: 1024,
        cpus: None,
        agent: agent::build()?,
        disk: None,
        packages: Vec::new(),
        channels: Vec::new(),
        // Whoever tries the lines that it prints has only the endpoint.
        secret: false,
    };
    let start = Instant::now();
    let mut machine = Machine::start(&Setup::new(&target()), &spec, keep)?;
    machine.wait_ready(READY_LIMIT)?;
    let boot = start.elapsed();
    let demo = Demo {
        guestline: target().join("debug/guestline"),
        endpoint: machine.endpoint(),
    };
    println!(
        "\nA machine with the users alice and bob answers at {}\n",
        demo.endpoint
    );

    demo.files()?;
    demo.programs()?;
    demo.refusals()?;
    demo.transfer()?;
    tokio::runtime::Runtime::new()?.block_on(demo.timings(boot))?;
    sessions::show(&spec.agent)?;

    println!("\nEvery line above was checked.");
    if keep {
        println!("The machine stays up. Try:\n");
        println!("  export GUESTLINE_VM={}", demo.endpoint);
        println!("  {} --user alice shell", demo.guestline.display());
        println!("  {} --user bob exec -- id", demo.guestline.display());
        println!("  cargo xtask vm stop {}", spec.name);
    }
    Ok(())
}

struct Demo {
    guestline: PathBuf,
    endpoint: String,
}

impl Demo {
    fn files(&self) -> anyhow::Result<()> {
        for user in ["alice", "bob"] {
            let list = self.succeed(user, &["ls", "/"])?;
            ensure!(
                list.lines()
                    .any(|name| name.trim_end_matches('/') == "home"),
                "no home in {list:?}"
            );
        }
        self.succeed(
            "alice",
            &[
                "exec",
                "--shell",
                "echo 'dear diary' > diary && chmod 600 diary",
            ],
        )?;
        self.succeed("alice", &["ls", "-l", "/home/alice"])?;
        let (refused, said) = self.run("bob", &["cat", "/home/alice/diary"])?;
        ensure!(
            !refused.status.success() && said.contains("EACCES"),
            "bob was not refused: {said}"
        );
        let read = self.succeed("root", &["cat", "/home/alice/diary"])?;
        ensure!(read == "dear diary\n", "root read {read:?}");
        Ok(())
    }

    fn programs(&self) -> anyhow::Result<()> {
        for (user, uid) in [("root", 0), ("alice", 1000), ("bob", 1001)] {
            let id = self.succeed(user, &["exec", "--", "id"])?;
            ensure!(id.starts_with(&format!("uid={uid}({user})")), "{id}");
        }
        self.streamed()?;
        let (piped, _) = self.run(
            "alice",
            &["exec", "--shell", "printf 'b\\na\\n' | sort; exit 3"],
        )?;
        ensure!(
            piped.stdout == b"a\nb\n" && piped.status.code() == Some(3),
            "{piped:?}"
        );
        println!("  exit code 3");
        Ok(())
    }

    /// Output is shown as it comes: the first line long before the program ends.
    fn streamed(&self) -> anyhow::Result<()> {
        let line = "for i in 1 2 3; do echo line $i; sleep 0.3; done";
        let mut command = self.command("alice", &["exec", "--shell", line]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run guestline")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (mut lines, mut arrivals) = (Vec::new(), Vec::new());
        for line in BufReader::new(stdout).lines() {
            lines.push(line?);
            arrivals.push(Instant::now());
            println!("  {}", lines[lines.len() - 1]);
        }
        ensure!(
            child.wait()?.success() && lines == ["line 1", "line 2", "line 3"],
            "{lines:?}"
        );
        let spread = arrivals[2] - arrivals[0];
        ensure!(
            spread >= Duration::from_millis(300),
            "all came at once, within {spread:?}"
        );
        Ok(())
    }

    fn refusals(&self) -> anyhow::Result<()> {
        let (refused, said) = self.run("mallory", &["ls", "/"])?;
        ensure!(
            !refused.status.success() && said.contains("mallory"),
            "{said}"
        );
        Ok(())
    }

    fn transfer(&self) -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("guestline-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let result = self.transfer_in(&folder);
        fs::remove_dir_all(&folder)?;
        result
    }

    fn transfer_in(&self, folder: &std::path::Path) -> anyhow::Result<()> {
        let (sent, back) = (folder.join("64-MiB"), folder.join("back"));
        let mut bytes = vec![0; TRANSFER];
        let mut state = 1_u64;
        for chunk in bytes.chunks_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        fs::write(&sent, &bytes)?;
        let rate =
            |start: Instant| TRANSFER as f64 / (1 << 20) as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        self.watch("alice", &["cp", &sent.to_string_lossy(), ":64-MiB"])?;
        println!("  {:.0} MiB/s into the guest", rate(start));
        let start = Instant::now();
        self.watch("alice", &["cp", ":64-MiB", &back.to_string_lossy()])?;
        println!("  {:.0} MiB/s out of the guest", rate(start));
        let here = Command::new("sha256sum")
            .arg(&sent)
            .output()
            .context("cannot run sha256sum")?
            .stdout;
        let there = self.succeed("alice", &["exec", "--", "sha256sum", "64-MiB"])?;
        let digest = |text: &str| {
            text.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let here = digest(&String::from_utf8_lossy(&here));
        ensure!(
            here.len() == 64 && here == digest(&there),
            "the checksums differ: {here} and {there}"
        );
        ensure!(fs::read(&back)? == bytes, "what came back differs");
        println!("  the same checksum on both sides, and what came back is what was sent");
        Ok(())
    }

    async fn timings(&self, boot: Duration) -> anyhow::Result<()> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        println!("\nTimings on this machine (medians of {CALLS})");
        println!(
            "  start of the machine to the first answer  {:>8.2} s",
            boot.as_secs_f64()
        );
        let vm = Vm::new(endpoint).user("bob");
        let start = Instant::now();
        vm.files().stat("/").await?;
        println!(
            "  first call of a new connection            {:>8.2} ms",
            millis(start.elapsed())
        );
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let start = Instant::now();
            vm.files().stat("/").await?;
            calls.push(start.elapsed());
        }
        println!(
            "  a call (stat)                             {:>8.2} ms",
            millis(median(calls))
        );
        let mut execs = Vec::new();
        for _ in 0..CALLS {
            let start = Instant::now();
            ensure!(vm.command("true").output().await?.status.success());
            execs.push(start.elapsed());
        }
        println!(
            "  exec of `true`                            {:>8.2} ms",
            millis(median(execs))
        );
        self.memory().await
    }

    /// VmRSS of listener and workers, from /proc/PID/status.
    async fn memory(&self) -> anyhow::Result<()> {
        let root = Vm::new(self.endpoint.parse()?);
        let line = "for p in $(pidof guestline-agent); do \
                    echo $(tr '\\0' ' ' < /proc/$p/cmdline): $(grep VmRSS /proc/$p/status); done";
        let output = root.shell(line).output().await?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(
            text.contains("worker -- bob"),
            "no worker of bob's in {text:?}"
        );
        for line in text.lines() {
            println!("  memory of {}", line.replace("VmRSS:", ""));
        }
        Ok(())
    }

    /// Shows the line, runs it, shows what it says, and returns both.
    fn run(&self, user: &str, words: &[&str]) -> anyhow::Result<(Output, String)> {
        let output = self
            .command(user, words)
            .output()
            .context("cannot run guestline")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in String::from_utf8_lossy(&output.stdout)
            .lines()
            .chain(said.lines())
        {
            println!("  {line}");
        }
        Ok((output, said))
    }

    fn succeed(&self, user: &str, words: &[&str]) -> anyhow::Result<String> {
        let (output, said) = self.run(user, words)?;
        if !output.status.success() {
            bail!(
                "guestline {words:?} as {user} failed ({}): {said}",
                output.status
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same, with its progress bar on this terminal.
    fn watch(&self, user: &str, words: &[&str]) -> anyhow::Result<()> {
        check(&mut self.command(user, words))
    }

    fn command(&self, user: &str, words: &[&str]) -> Command {
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        println!("$ guestline --user {user} {}", quoted.join(" "));
        let _ = std::io::stdout().flush();
        let mut command = Command::new(&self.guestline);
        command
            .args(["--vm", &self.endpoint, "--user", user])
            .args(words);
        command
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if word.chars().all(plain) {
        word.into()
    } else {
        format!("{word:?}")
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

//! The demo's second half: a gateway on its defaults, a machine of its own, and the published SDK with nothing but a token.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use crate::{
    node,
    workspace::{cargo, check, root, target},
};

/// How much of a secret is shown.
const SHOWN: usize = 12;

pub(super) fn show(agent: &Path) -> anyhow::Result<()> {
    let packages = node::prepare()?;
    check(cargo().args(["build", "--quiet", "--package", "guestline-gateway"]))?;
    println!("\nA gateway in front of machines: tokens that reach only what they were granted\n");
    let gateway = Gateway::start(agent)?;
    let vm = gateway.run(&["vm", "create", "--user", "alice", "--user", "bob"])?;
    let identity = gateway.run(&["identity", "create"])?;
    gateway.run(&[
        "grant", "add", &identity, &vm, "--user", "alice", "--user", "bob",
    ])?;
    let token = gateway.run(&["token", "create", &identity])?;
    let client = Client {
        packages,
        gateway: &gateway,
        token: &token,
        vm: &vm,
    };
    client.run("use")?;
    gateway.run(&["vm", "suspend", &vm])?;
    gateway.run(&["vm", "info", &vm])?;
    client.run("wake")?;
    gateway.run(&["vm", "info", &vm])?;
    let id = gateway.run(&["token", "list", &identity])?;
    gateway.run(&["token", "revoke", &identity, &id])?;
    client.run("revoked")?;
    let log = gateway.run(&["audit", "--vm", &vm, "--limit", "6"])?;
    ensure!(log.contains("bob"), "bob is not in the log");
    gateway.run(&["vm", "delete", &vm])?;
    gateway.end()
}

/// A running gateway with a folder of its own. Dropping it kills it and removes the folder.
struct Gateway {
    program: PathBuf,
    process: Child,
    folder: PathBuf,
    url: String,
    key: String,
}

impl Gateway {
    fn start(agent: &Path) -> anyhow::Result<Self> {
        let program = target().join("debug/guestline-gateway");
        let folder = std::env::temp_dir().join(format!("guestline-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        println!("$ guestline-gateway serve --machines --agent guestline-agent &");
        let mut process = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--machines", "--agent"])
            .arg(agent)
            .arg("--data-dir")
            .arg(&folder)
            .arg("--image-cache")
            .arg(target())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
            .context("cannot run guestline-gateway")?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let mut this = Self {
            program,
            process,
            folder,
            url: String::new(),
            key: String::new(),
        };
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("  {}", shortened(&line));
            if let Some(key) = line.strip_prefix("admin key, shown this once: ") {
                this.key = key.into();
            }
            if let Some(address) = line.strip_prefix("listening on ") {
                this.url = format!("http://{address}");
                return Ok(this);
            }
        }
        bail!("the gateway did not start:\n{}", this.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A command of the admin's; what it prints.
    fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        println!("$ guestline-gateway {}", words.join(" "));
        let _ = std::io::stdout().flush();
        let output = Command::new(&self.program)
            .args(words)
            .env("GUESTLINE_GATEWAY", &self.url)
            .env("GUESTLINE_ADMIN_KEY", &self.key)
            .output()
            .context("cannot run guestline-gateway")?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        for line in said.lines() {
            println!("  {}", shortened(line));
        }
        ensure!(
            output.status.success(),
            "guestline-gateway {words:?}: {}\nits log:\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Ok(said)
    }

    fn end(mut self) -> anyhow::Result<()> {
        check(Command::new("kill").arg(self.process.id().to_string()))?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Who has nothing but a token.
struct Client<'a> {
    packages: PathBuf,
    gateway: &'a Gateway,
    token: &'a str,
    vm: &'a str,
}

impl Client<'_> {
    fn run(&self, part: &str) -> anyhow::Result<()> {
        let script = self.packages.join("client.mjs");
        fs::copy(root().join("examples/sdk/client.mjs"), &script)?;
        println!("$ node client.mjs {part}");
        check(
            Command::new("node")
                .arg(&script)
                .arg(part)
                .env("GATEWAY_URL", &self.gateway.url)
                .env("TOKEN", self.token)
                .env("VM", self.vm),
        )
        .with_context(|| format!("the gateway's log:\n{}", self.gateway.log()))
    }
}

/// A line with its secret cut: a demo is looked at over shoulders.
fn shortened(line: &str) -> String {
    let Some(at) = line.find("glk_").or_else(|| line.find("gl_")) else {
        return line.into();
    };
    let shown: String = line[at..].chars().take(SHOWN).collect();
    format!("{}{shown}…", &line[..at])
}

//! The gateway's SSH in front of the same agent: the host's own scp and sftp, over a connection that is there already.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use guestline_client::Endpoint;
use tempfile::TempDir;

use super::ssh::{finish, timed};
use crate::{sample::blocking, stage::USER};

/// What stands for the gateway's address on the clients' command lines.
const HOST: &str = "gateway";

/// A gateway with this machine alone, and clients that are alice.
pub(crate) struct Gateway {
    process: Child,
    folder: TempDir,
}

/// Where it listens, and its admin's key.
struct Told {
    url: String,
    ssh: String,
    key: String,
}

impl Gateway {
    /// Starts it, registers the machine, and connects once.
    pub(crate) async fn start(program: PathBuf, endpoint: Endpoint) -> anyhow::Result<Self> {
        let this = blocking(move || {
            let folder = tempfile::Builder::new()
                .prefix("guestline-gateway-")
                .tempdir()?;
            let process = Command::new(&program)
                .args(["serve", "--listen", "127.0.0.1:0"])
                .args(["--ssh-listen", "127.0.0.1:0", "--data-dir"])
                .arg(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(fs::File::create(folder.path().join("log"))?)
                .spawn()
                .with_context(|| format!("cannot run {}", program.display()))?;
            let mut this = Self { process, folder };
            let told = this.listens()?;
            let vm = register(&program, &told, &endpoint)?;
            this.configure(&told, &vm)?;
            let mut first = this.command("ssh");
            first.args(["-M", "-N", "-f", HOST]);
            finish(first)?;
            Ok(this)
        });
        this.await
    }

    /// Until it says so.
    fn listens(&mut self) -> anyhow::Result<Told> {
        let stdout = self.process.stdout.take().context("stdout is piped")?;
        let (mut key, mut ssh) = (None, None);
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(it) = line.strip_prefix("admin key, shown this once: ") {
                key = Some(it.to_owned());
            } else if let Some(it) = line.strip_prefix("listening for SSH on ") {
                ssh = Some(it.to_owned());
            } else if let Some(it) = line.strip_prefix("listening on ") {
                return Ok(Told {
                    url: format!("http://{it}"),
                    ssh: ssh.context("it has no SSH")?,
                    key: key.context("it made no key")?,
                });
            }
        }
        anyhow::bail!("the gateway did not start")
    }

    fn configure(&self, told: &Told, vm: &str) -> anyhow::Result<()> {
        let (address, port) = told.ssh.rsplit_once(':').context("no port")?;
        let control = self.folder.path().join("control");
        let config = format!(
            "Host {HOST}\n HostName {address}\n Port {port}\n User {vm}+{USER}:{}\n ControlPath {}\n \
             StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n BatchMode yes\n \
             IdentitiesOnly yes\n IdentityFile none\n",
            told.key,
            control.display()
        );
        Ok(fs::write(self.config(), config)?)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.config());
        command
    }

    /// `scp` from the guest.
    pub(crate) async fn fetch(&self, from: &str, to: &Path) -> anyhow::Result<Duration> {
        let mut scp = self.command("scp");
        scp.arg("-q").arg(format!("{HOST}:{from}")).arg(to);
        timed(scp).await
    }

    /// `scp` to the guest.
    pub(crate) async fn store(&self, from: &Path, to: &str) -> anyhow::Result<Duration> {
        let mut scp = self.command("scp");
        scp.arg("-q").arg(from).arg(format!("{HOST}:{to}"));
        timed(scp).await
    }

    /// `sftp` from the guest.
    pub(crate) async fn get(&self, from: &str, to: &Path) -> anyhow::Result<Duration> {
        self.sftp(&format!("get {from} {}\n", to.display())).await
    }

    /// `sftp` to the guest.
    pub(crate) async fn put(&self, from: &Path, to: &str) -> anyhow::Result<Duration> {
        self.sftp(&format!("put {} {to}\n", from.display())).await
    }

    async fn sftp(&self, batch: &str) -> anyhow::Result<Duration> {
        let path = self.folder.path().join("batch");
        fs::write(&path, batch)?;
        let mut sftp = self.command("sftp");
        sftp.arg("-q").arg("-b").arg(path).arg(HOST);
        timed(sftp).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut end = self.command("ssh");
        let _ = end.args(["-O", "exit", HOST]).output();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn register(program: &Path, told: &Told, endpoint: &Endpoint) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(["vm", "register", "--url", &told.url])
        .arg(endpoint.to_string())
        .env("GUESTLINE_ADMIN_KEY", &told.key)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it did not take the VM: {said}");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

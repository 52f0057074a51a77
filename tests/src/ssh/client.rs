//! OpenSSH's clients with a configuration of their own: they know the gateway's host key, and nothing of who runs the tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, ensure};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use crate::gateway::Gateway;

/// What stands for the gateway's address on the clients' command lines.
pub(super) const HOST: &str = "gateway";

/// Clients of one gateway. Dropping them removes their files.
pub struct Clients {
    folder: tempfile::TempDir,
}

/// How a client ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None`: killed.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// What it printed, if it ended well.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(self.code == Some(0), "{self:?}");
        Ok(self.stdout)
    }
}

impl Clients {
    /// Takes the host key from the command that prints it.
    pub fn new(program: &Path, gateway: &Gateway) -> anyhow::Result<Self> {
        let address = gateway.ssh()?;
        let output = std::process::Command::new(program)
            .args(["known-hosts", "--data-dir"])
            .arg(gateway.folder())
            .args(["--port", &address.port().to_string(), "127.0.0.1"])
            .output()?;
        let line = Ended::from(output).ok()?;
        let folder = tempfile::tempdir()?;
        let known_hosts = folder.path().join("known_hosts");
        fs::write(&known_hosts, line)?;
        let config = format!(
            "Host {HOST}\n HostName 127.0.0.1\n Port {}\n UserKnownHostsFile {}\n\
             Host *\n StrictHostKeyChecking yes\n BatchMode yes\n IdentitiesOnly yes\n IdentityFile none\n\
             GlobalKnownHostsFile none\n LogLevel ERROR\n ControlPath {}/%C\n",
            address.port(),
            known_hosts.display(),
            folder.path().display(),
        );
        fs::write(folder.path().join("config"), config)?;
        Ok(Self { folder })
    }

    /// Their configuration, for ssh's option -F.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// From now on they are this user at the gateway, by a key, unless they are told otherwise.
    pub fn use_key(&self, private: &Path, user: &str) -> anyhow::Result<()> {
        let config = fs::read_to_string(self.config())?;
        let known = format!("IdentityFile {}", private.display());
        let config = config
            .replace("IdentityFile none", &known)
            .replace("HostName", &format!("User {user}\n HostName"));
        Ok(fs::write(self.config(), config)?)
    }

    /// Where their files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `ssh`, `scp` or `sftp` with the configuration, and no terminal.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-F")
            .arg(self.config())
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("DISPLAY")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// `ssh NAME@gateway ARGUMENTS…` to its end.
    pub async fn ssh(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Ended> {
        self.ssh_with(&[], name, arguments).await
    }

    /// The same with options.
    pub async fn ssh_with(
        &self,
        options: &[&str],
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Ended> {
        let mut command = self.command("ssh");
        command
            .args(options)
            .arg(format!("{name}@{HOST}"))
            .args(arguments);
        ended(command).await
    }

    /// A program that answers a client's question for a secret, for `SSH_ASKPASS`.
    pub fn answering(&self, secret: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join("askpass");
        fs::write(&path, format!("#!/bin/sh\necho '{secret}'\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// A new key of `ssh-keygen`'s: the private key's path; the public one's has `.pub` behind it.
    pub async fn key(&self, kind: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("key-{kind}"));
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-N", "", "-C", "alice@laptop", "-t", kind, "-f"])
            .arg(&path);
        ended(command).await?.ok()?;
        Ok(path)
    }
}

/// Starts a client whose program prints "up" first, and waits until it has.
pub(super) async fn started(mut command: Command) -> anyhow::Result<Child> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut up = [0; 3];
    let stdout = child.stdout.as_mut().context("stdout")?;
    stdout.read_exact(&mut up).await?;
    ensure!(&up == b"up\n", "{up:?}");
    Ok(child)
}

/// Runs a client to its end.
pub(super) async fn ended(mut command: Command) -> anyhow::Result<Ended> {
    let output = command.output().await;
    let program = command.as_std().get_program().to_owned();
    Ok(output
        .with_context(|| format!("cannot run {program:?} (apt-get install openssh-client)"))?
        .into())
}

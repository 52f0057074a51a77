//! OpenSSH over vsock: the host's own ssh and scp, which get a connected socket from us (`ProxyUseFdpass`), and the guest's
//! sshd. What is measured goes over one connection that is there already (`ControlMaster`), unless it says otherwise.

use std::{
    env, fs,
    io::IoSlice,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use guestline_client::{Endpoint, Vm, WriteOptions};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;

use super::raw;
use crate::{sample::blocking, socket::Socket};

/// A user of the guest, by ssh.
pub(crate) struct Ssh {
    folder: TempDir,
    user: String,
    endpoint: Endpoint,
}

impl Ssh {
    /// Makes a key, has the guest take it, and connects once.
    pub(crate) async fn start(root: &Vm, user: &Vm) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("guestline-ssh-")
            .tempdir()?;
        let this = Self {
            user: user.username().into(),
            endpoint: root.endpoint().clone(),
            folder,
        };
        let key = this.folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .output()
            .context("cannot run ssh-keygen (openssh-client)")?;
        ensure!(made.status.success(), "ssh-keygen failed");
        let files = user.files();
        let options = WriteOptions::replace().permissions(0o600).parents(true);
        let mut writer = files.write_with(".ssh/authorized_keys", options).await?;
        writer.write(fs::read(key.with_extension("pub"))?).await?;
        writer.finish().await?;
        let prepared = root.shell("mkdir -p /run/sshd && test -x /usr/sbin/sshd");
        ensure!(
            prepared.output().await?.status.success(),
            "the guest has no sshd"
        );
        let mut first = this.command("ssh");
        first.args(["-M", "-N", "-f"]).arg(this.user_at());
        blocking(move || finish(first)).await?;
        Ok(this)
    }

    /// Runs a line over the connection that is there.
    pub(crate) async fn run(&self, line: &str) -> anyhow::Result<Duration> {
        let mut command = self.command("ssh");
        command.arg(self.user_at()).arg(line);
        timed(command).await
    }

    /// The same over a connection of its own.
    pub(crate) async fn run_anew(&self, line: &str) -> anyhow::Result<Duration> {
        let mut command = self.plain("ssh");
        command.arg(self.user_at()).arg(line);
        timed(command).await
    }

    /// `scp -r` from the guest.
    pub(crate) async fn fetch(&self, from: &str, to: &Path) -> anyhow::Result<Duration> {
        let mut command = self.command("scp");
        command.arg("-qr");
        command.arg(format!("{}:{from}", self.user_at())).arg(to);
        timed(command).await
    }

    /// `scp -r` to the guest.
    pub(crate) async fn store(&self, from: &Path, to: &str) -> anyhow::Result<Duration> {
        let mut command = self.command("scp");
        command.arg("-qr").arg(from);
        command.arg(format!("{}:{to}", self.user_at()));
        timed(command).await
    }

    /// `tar | ssh tar`, a folder to the guest.
    pub(crate) async fn store_tar(&self, from: &Path, to: &str) -> anyhow::Result<Duration> {
        let line = format!("mkdir -p {to} && tar -C {to} -xf -");
        let pack = format!("tar -C {} -cf - .", from.display());
        self.pipe(&pack, &line, false).await
    }

    /// `ssh tar | tar`, a folder from the guest.
    pub(crate) async fn fetch_tar(&self, from: &str, to: &Path) -> anyhow::Result<Duration> {
        let line = format!("tar -C {from} -cf - .");
        let unpack = format!("tar -C {} -xf -", to.display());
        self.pipe(&unpack, &line, true).await
    }

    async fn pipe(&self, here: &str, there: &str, from_guest: bool) -> anyhow::Result<Duration> {
        let mut ssh = self.command("ssh");
        ssh.arg(self.user_at()).arg(there);
        let mut tar = Command::new("sh");
        tar.args(["-c", here]);
        blocking(move || {
            let start = Instant::now();
            let (mut first, mut second) = if from_guest { (ssh, tar) } else { (tar, ssh) };
            let mut sending = first.stdout(Stdio::piped()).spawn()?;
            let pipe = sending.stdout.take().context("stdout is piped")?;
            let taken = second.stdin(pipe).output()?;
            ensure!(sending.wait()?.success(), "the sender failed");
            let said = String::from_utf8_lossy(&taken.stderr);
            ensure!(taken.status.success(), "the receiver failed: {said}");
            Ok(start.elapsed())
        })
        .await
    }

    fn user_at(&self) -> String {
        format!("{}@guest", self.user)
    }

    /// With the connection that is there.
    fn command(&self, program: &str) -> Command {
        let mut command = self.plain(program);
        let socket = self.folder.path().join("control");
        command.arg(format!("-oControlPath={}", socket.display()));
        command
    }

    fn plain(&self, program: &str) -> Command {
        let own = env::current_exe().unwrap_or_else(|_| PathBuf::from("guestline-bench"));
        let proxy = format!(
            "-oProxyCommand={} connect {} {}",
            own.display(),
            self.endpoint,
            raw::SSH_PORT
        );
        let mut command = Command::new(program);
        command.args(["-F", "none", "-oProxyUseFdpass=yes", &proxy]);
        command.args([
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
        ]);
        command.args(["-oLogLevel=ERROR", "-oBatchMode=yes", "-i"]);
        command.arg(self.folder.path().join("key"));
        command
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let mut end = self.command("ssh");
        end.args(["-O", "exit"]).arg(self.user_at());
        let _ = end.output();
    }
}

/// Runs it to its end.
pub(super) async fn timed(command: Command) -> anyhow::Result<Duration> {
    blocking(move || {
        let start = Instant::now();
        finish(command)?;
        Ok(start.elapsed())
    })
    .await
}

/// Fails with what it said.
pub(super) fn finish(mut command: Command) -> anyhow::Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // A master that stays in the background must not hold a pipe of ours.
    let log = tempfile::tempfile()?;
    let status = command.stderr(log.try_clone()?).status();
    let status = status.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    use std::io::{Read, Seek};
    (&log).rewind()?;
    (&log).read_to_string(&mut said)?;
    anyhow::bail!("{:?} failed ({status}): {said}", command.get_program())
}

/// `ProxyUseFdpass`: gives ssh, over our stdout, a socket to work on, so that nobody stands between.
pub(crate) fn pass_connection(endpoint: &Endpoint, port: u32) -> anyhow::Result<()> {
    let socket = Socket::connect(endpoint, port)?;
    let descriptors = [socket.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let stdout = std::io::stdout().as_raw_fd();
    let byte = [IoSlice::new(b"\0")];
    sendmsg::<()>(stdout, &byte, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

//! What the cases run against: the agent's own binary over a Unix socket, in a mount namespace with accounts of its own, or
//! a machine. Both have root, alice and bob.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use guestline_client::{Endpoint, Secret, Vm};

/// Accounts as in the machines' images.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/sh
bob:x:1001:1001:Bob:/home/bob:/bin/sh
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
";
const GROUP: &str = "root:x:0:
alice:x:1000:
bob:x:1001:
team:x:1500:alice
nogroup:x:65534:
";

/// Where users are who are in the guest's directory and not in its files, in the form of passwd(5) and group(5).
pub const DIRECTORY: &str = "/root/directory";

/// Stands for glibc's getent(1), with a nsswitch.conf(5) that names such a directory.
const GETENT: &str = r#"#!/bin/sh
cd /root/directory || exit 2
case $1 in
passwd) grep -E "^($2:|[^:]*:[^:]*:$2:)" passwd || exit 2;;
initgroups) echo "$2" $(sed -nE "s/^[^:]*:[^:]*:([^:]*):(.*,)?$2(,.*)?$/\1/p" group);;
*) exit 1;;
esac
"#;

/// Makes the namespace's own /etc/passwd, /etc/group, /run, /home and /root, and runs the agent. The host's stay untouched.
const NAMESPACE: &str = r#"
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount -t tmpfs -o mode=755 tmpfs /run
# No cgroup of the host's is touched.
mount -t tmpfs -o ro tmpfs /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /home
mount -t tmpfs -o mode=700 tmpfs /root
mkdir /root/directory
mkdir -m 700 /home/alice /home/bob
chown 1000:1000 /home/alice
chown 1001:1001 /home/bob
mount --bind "$1/getent" /usr/bin/getent
# Not what the agent makes of it.
ulimit -Sn 1024
# As process 1 this shell reaps, and like an init it keeps the agent up.
while :; do
  "$2" --listen "unix:$1/agent.sock" --config "$1/agent.toml" --secret-file "$1/agent.sock.secret" --idle-timeout 2 || true
done
"#;

/// Something with an agent in it.
pub struct Target {
    name: String,
    endpoint: Endpoint,
    secret_file: Option<PathBuf>,
    secret: Option<Secret>,
    owner: Option<LocalAgent>,
}

impl Target {
    /// The agent's binary over a Unix socket. Needs root for the namespace.
    pub async fn local(agent: &Path) -> anyhow::Result<Self> {
        Self::local_by(agent, Command::new("unshare"), None).await
    }

    /// The same, with a secret.
    pub async fn local_with(agent: &Path, secret: &Secret) -> anyhow::Result<Self> {
        Self::local_by(agent, Command::new("unshare"), Some(secret)).await
    }

    /// The same, started by a command that becomes `unshare` and takes its arguments.
    pub async fn local_by(
        agent: &Path,
        mut unshare: Command,
        secret: Option<&Secret>,
    ) -> anyhow::Result<Self> {
        // The binary must be reachable for the users too, and /root is hidden in the namespace.
        let folder = tempfile::Builder::new()
            .prefix("guestline-")
            .tempdir_in("/var/tmp")?;
        let binary = folder.path().join("guestline-agent");
        fs::copy(agent, &binary).with_context(|| format!("cannot copy {}", agent.display()))?;
        // What an agent with switches does without is said beside it.
        let switches = agent.with_extension("switches");
        if switches.exists() {
            fs::copy(switches, binary.with_extension("switches"))?;
        }
        fs::write(folder.path().join("passwd"), PASSWD)?;
        fs::write(folder.path().join("group"), GROUP)?;
        let getent = folder.path().join("getent");
        fs::write(&getent, GETENT)?;
        fs::set_permissions(&getent, fs::Permissions::from_mode(0o755))?;
        let socket = folder.path().join("agent.sock");
        let endpoint: Endpoint = format!("unix:{}", socket.display()).parse()?;
        let secret_file = endpoint.secret_file().context("a socket has one")?;
        if let Some(secret) = secret {
            write_private(&secret_file, secret.expose())?;
        }
        let child = unshare
            .args([
                "--mount",
                "--propagation",
                "private",
                // All that runs there ends with it, daemons and workers too.
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                NAMESPACE,
                "sh",
            ])
            .args([folder.path(), &binary])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.path().join("agent.log"))?)
            .spawn()
            .context("cannot run unshare (util-linux)")?;
        let mut owner = LocalAgent {
            child,
            folder,
            agent: agent.into(),
        };
        let end = Instant::now() + Duration::from_secs(60);
        // Its file is there a moment before anybody listens.
        while UnixStream::connect(&socket).is_err() {
            if owner.child.try_wait()?.is_some() || Instant::now() > end {
                bail!(
                    "the agent did not start: {}",
                    fs::read_to_string(owner.log()).unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self {
            name: "local".into(),
            endpoint,
            secret_file: secret.map(|_| secret_file),
            secret: secret.cloned(),
            owner: Some(owner),
        })
    }

    /// A machine that answers at this endpoint. Its secret is in this file, or beside its socket, or it has none.
    pub fn machine(
        name: &str,
        endpoint: Endpoint,
        secret_file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let beside = endpoint.secret_file().filter(|path| path.exists());
        let secret_file = secret_file.or(beside);
        let read = |path: &PathBuf| {
            let own_uid = fs::metadata("/proc/self")?.uid();
            let secrets = Secret::read_file(path, own_uid)
                .with_context(|| format!("no use of the secret in {}", path.display()))?;
            secrets.into_iter().next().context("no secret")
        };
        Ok(Self {
            name: name.into(),
            endpoint,
            secret: secret_file.as_ref().map(read).transpose()?,
            secret_file,
            owner: None,
        })
    }

    /// "local", "minimal" or "debian".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a kernel of its own.
    pub fn is_machine(&self) -> bool {
        self.owner.is_none()
    }

    /// The agent's binary, for a case that starts others of its own. Not of a machine.
    pub fn agent(&self) -> Option<&Path> {
        self.owner.as_ref().map(|owner| owner.agent.as_path())
    }

    /// A file that says to processes of the agent, as they start, what to do without; for a build with switches. Not of a
    /// machine.
    pub fn switches(&self) -> Option<PathBuf> {
        let owner = self.owner.as_ref()?;
        Some(owner.folder.path().join("guestline-agent.switches"))
    }

    /// The same target under another name, which says what runs on it.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Where the agent answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What its hosts must prove that they have, if anything.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// The file with it.
    pub fn secret_file(&self) -> Option<&Path> {
        self.secret_file.as_deref()
    }

    /// What the agent wrote to its log. Not of a machine.
    pub fn log(&self) -> anyhow::Result<String> {
        let owner = self.owner.as_ref().context("a machine keeps its log")?;
        Ok(fs::read_to_string(owner.log())?)
    }

    /// The target as one of its users.
    pub fn user(&self, name: &str) -> Vm {
        let vm = Vm::new(self.endpoint.clone()).user(name);
        match &self.secret {
            Some(secret) => vm.secret(secret.clone()),
            None => vm,
        }
    }
}

/// A file for its owner alone, whole at every moment.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(new, path)?)
}

struct LocalAgent {
    child: Child,
    folder: tempfile::TempDir,
    /// What it is a copy of.
    agent: PathBuf,
}

impl LocalAgent {
    fn log(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }
}

impl Drop for LocalAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

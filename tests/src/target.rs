//! What the cases run against: the agent's own binary over a Unix socket, in a mount namespace with accounts of its own, or
//! a machine. Both have root, alice and bob.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use guestline_client::{Endpoint, Vm};

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

/// Makes the namespace's own /etc/passwd, /etc/group, /home and /root, and becomes the agent. The host's stay untouched.
const NAMESPACE: &str = r#"
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount -t tmpfs -o mode=755 tmpfs /home
mount -t tmpfs -o mode=700 tmpfs /root
mkdir -m 700 /home/alice /home/bob
chown 1000:1000 /home/alice
chown 1001:1001 /home/bob
exec "$2" --listen "unix:$1/agent.sock" --config "$1/agent.toml" --idle-timeout 2
"#;

/// Something with an agent in it.
pub struct Target {
    name: String,
    endpoint: Endpoint,
    owner: Option<LocalAgent>,
}

impl Target {
    /// The agent's binary over a Unix socket. Needs root for the namespace.
    pub async fn local(agent: &Path) -> anyhow::Result<Self> {
        // The binary must be reachable for the users too, and /root is hidden in the namespace.
        let folder = tempfile::Builder::new()
            .prefix("guestline-")
            .tempdir_in("/var/tmp")?;
        let binary = folder.path().join("guestline-agent");
        fs::copy(agent, &binary).with_context(|| format!("cannot copy {}", agent.display()))?;
        fs::write(folder.path().join("passwd"), PASSWD)?;
        fs::write(folder.path().join("group"), GROUP)?;
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
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
        let socket = folder.path().join("agent.sock");
        let mut owner = LocalAgent { child, folder };
        let end = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            if owner.child.try_wait()?.is_some() || Instant::now() > end {
                bail!(
                    "the agent did not start: {}",
                    fs::read_to_string(owner.log()).unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let endpoint = format!("unix:{}", socket.display()).parse()?;
        Ok(Self {
            name: "local".into(),
            endpoint,
            owner: Some(owner),
        })
    }

    /// A machine that answers at this endpoint.
    pub fn machine(name: &str, endpoint: Endpoint) -> Self {
        Self {
            name: name.into(),
            endpoint,
            owner: None,
        }
    }

    /// "local", "minimal" or "debian".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a kernel of its own.
    pub fn is_machine(&self) -> bool {
        self.owner.is_none()
    }

    /// Where the agent answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The target as one of its users.
    pub fn user(&self, name: &str) -> Vm {
        Vm::new(self.endpoint.clone()).user(name)
    }
}

struct LocalAgent {
    child: Child,
    folder: tempfile::TempDir,
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

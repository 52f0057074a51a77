//! The gateway's SSH side on the command line: `serve --ssh-listen`, and `guestline-gateway known-hosts`.

use std::{net::SocketAddr, path::Path, time::Duration};

use clap::Args;

use super::Database;
use crate::ssh::{LimitsConfig, Patience, SshConfig, host_key, known_hosts_line};

/// SSH in front of the same VMs.
#[derive(Debug, Args)]
pub(super) struct SshArguments {
    /// Where to listen for SSH, as in 0.0.0.0:2222; nowhere otherwise. Port 0 is one that the system chooses.
    #[arg(long, env = "GUESTLINE_GATEWAY_SSH_LISTEN")]
    ssh_listen: Option<SocketAddr>,
    /// Seconds from an SSH client's first byte to its login.
    #[arg(long, default_value_t = 60)]
    ssh_login_timeout: u64,
    /// Seconds that an SSH connection may be without any channel.
    #[arg(long, default_value_t = 900)]
    ssh_idle_timeout: u64,
    /// SSH connections of one address.
    #[arg(long, default_value_t = 64)]
    ssh_per_source: usize,
    /// SSH connections with one token or key.
    #[arg(long, default_value_t = 64)]
    ssh_per_token: usize,
    /// Seconds that an address waits after a fifth failed SSH login; doubled with each further one. 0: never.
    #[arg(long, default_value_t = 5)]
    ssh_penalty: u64,
}

impl SshArguments {
    pub(super) fn config(&self, drain: Duration) -> Option<SshConfig> {
        Some(SshConfig {
            address: self.ssh_listen?,
            limits: LimitsConfig {
                per_source: self.ssh_per_source,
                per_credential: self.ssh_per_token,
                penalty: Duration::from_secs(self.ssh_penalty),
            },
            patience: Patience {
                login: Duration::from_secs(self.ssh_login_timeout),
                idle: Duration::from_secs(self.ssh_idle_timeout),
                drain,
            },
        })
    }
}

/// Which name a client uses.
#[derive(Debug, Args)]
pub(super) struct KnownHosts {
    #[command(flatten)]
    database: Database,
    /// The gateway's name or address, as clients give it to ssh.
    #[arg(default_value = "localhost")]
    host: String,
    /// The port, as clients give it to ssh.
    #[arg(long, default_value_t = 2222)]
    port: u16,
}

impl KnownHosts {
    /// Prints the line, and makes the host key if there is none yet.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let key = host_key(self.folder())?;
        println!("{}", known_hosts_line(&key, &self.host, self.port)?);
        Ok(())
    }

    fn folder(&self) -> &Path {
        &self.database.data_dir
    }
}

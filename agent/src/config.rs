//! Arguments and /etc/guestline/agent.toml, read once and turned into a valid [`Config`].

use std::{fs, io, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use serde::Deserialize;
use thiserror::Error;

use crate::{
    control::Services,
    listener::{ListenAddress, WorkerSettings},
};

/// The word of the guest's owner.
const OWNERS_FILE: &str = "/etc/guestline/agent.toml";

/// Serves files, processes and more of this machine to its host, as the Linux user that the host names.
#[derive(Debug, Parser)]
#[command(
    name = "guestline-agent",
    version,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Where to listen: vsock:PORT for the host, unix:PATH for tests; may be given more than once, and is vsock:777 otherwise
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenAddress>,

    /// The file in which this machine's owner says whom the host may become.
    #[arg(long, value_name = "PATH", default_value = OWNERS_FILE)]
    config: PathBuf,

    /// After how many seconds a worker with nothing to do ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle_timeout: u64,
}

/// What else this binary is.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One user's worker; only the listener starts it.
    #[command(hide = true)]
    Worker { user: String },
}

/// What the listener needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<ListenAddress>,
    /// Whom the host may become; `None`: anybody.
    pub(crate) users: Option<Vec<String>>,
    services: Services,
    idle_timeout: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OwnersWord {
    users: Option<Vec<String>>,
    services: Services,
}

/// Why there is no valid configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot understand {}", path.display())]
    Parse {
        path: PathBuf,
        source: toml::de::Error,
    },
}

impl Config {
    /// An unreadable or wrong file is an error, never "everything is allowed".
    pub(crate) fn load(arguments: Arguments) -> Result<Self, ConfigError> {
        let path = arguments.config;
        let owner: OwnersWord = match fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => OwnersWord::default(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let listen = if arguments.listen.is_empty() {
            vec![ListenAddress::default()]
        } else {
            arguments.listen
        };
        let idle_timeout = Duration::from_secs(arguments.idle_timeout);
        Ok(Self {
            listen,
            users: owner.users,
            services: owner.services,
            idle_timeout,
        })
    }

    pub(crate) fn worker_settings(&self) -> WorkerSettings {
        WorkerSettings {
            services: self.services,
            idle_timeout: self.idle_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_word_limits_users_and_services_and_typing_errors_are_errors() {
        let word: OwnersWord =
            toml::from_str("users = ['alice']\n[services]\nnetwork = false").unwrap();
        assert_eq!(word.users, Some(vec!["alice".into()]));
        assert_eq!(
            word.services,
            Services {
                network: false,
                ..Services::default()
            }
        );
        assert!(toml::from_str::<OwnersWord>("user = ['alice']").is_err());
        assert!(toml::from_str::<OwnersWord>("[services]\nfile = false").is_err());
    }
}

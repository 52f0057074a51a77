//! What the listener needs to know: its options and the word of the guest's owner, /etc/guestline/agent.toml, read once.

use std::{fs, io, path::PathBuf, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    arguments::Listening,
    control::Services,
    listener::{ListenAddress, Secrets, WorkerSettings},
};

/// What the listener needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<ListenAddress>,
    /// Whom the host may become; `None`: anybody.
    pub(crate) users: Option<Vec<String>>,
    pub(crate) secrets: Secrets,
    pub(crate) runtime_directory: PathBuf,
    /// The soft limit of descriptors that the agent was started with.
    pub(crate) open_files: u64,
    services: Services,
    idle_timeout: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OwnersWord {
    users: Option<Vec<String>>,
    require_secret: bool,
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
    pub(crate) fn load(options: Listening, open_files: u64) -> Result<Self, ConfigError> {
        let path = options.config;
        let owner: OwnersWord = match fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => OwnersWord::default(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let listen = if options.listen.is_empty() {
            vec![ListenAddress::default()]
        } else {
            options.listen
        };
        Ok(Self {
            listen,
            users: owner.users,
            secrets: Secrets::new(options.secret_file, owner.require_secret),
            runtime_directory: options.runtime_directory,
            open_files,
            services: owner.services,
            idle_timeout: options.idle_timeout,
        })
    }

    pub(crate) fn worker_settings(&self) -> WorkerSettings {
        WorkerSettings {
            services: self.services,
            idle_timeout: self.idle_timeout,
            runtime_directory: self.runtime_directory.clone(),
            open_files: self.open_files,
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
        assert!(!word.require_secret);
        assert_eq!(
            word.services,
            Services {
                network: false,
                ..Services::default()
            }
        );
        let word: OwnersWord = toml::from_str("require_secret = true").unwrap();
        assert!(word.require_secret);
        assert!(toml::from_str::<OwnersWord>("user = ['alice']").is_err());
        assert!(toml::from_str::<OwnersWord>("[services]\nfile = false").is_err());
    }
}

//! The command line. By lexopt, not by what the client's command uses: this binary is in every VM, and has few options.

use std::{path::PathBuf, time::Duration};

use lexopt::{Arg, Parser, ValueExt};
use thiserror::Error;

use crate::{listener::ListenAddress, sys::identity::Identity};

/// What `--help` says.
pub(crate) const HELP: &str = "\
Serves files, processes and more of this machine to its host, as the Linux user that the host names

Usage: guestline-agent [OPTIONS]

Options:
      --listen <ADDRESS>               Where to listen: vsock:PORT for the host, unix:PATH for tests; may be given more than
                                       once, and is vsock:777 otherwise
      --config <PATH>                  The file in which this machine's owner says whom the host may become [default:
                                       /etc/guestline/agent.toml]
      --secret-file <PATH>             Where the secret is that this machine shares with its host; only root may read it
                                       [default: /etc/guestline/secret]
      --runtime-directory <DIRECTORY>  Where workers find a listener that was restarted; only root may write there [default:
                                       /run/guestline]
      --idle-timeout <SECONDS>         After how many seconds a worker with nothing to do ends [default: 60]
  -h, --help                           Print this
  -V, --version                        Print the version
";

/// What this binary is to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Listen(Listening),
    /// One user's worker; only the listener starts it. The name is for whoever looks at the processes.
    Worker,
    /// Holds the file systems frozen for so long; only a worker starts it.
    Freezer(Duration),
    /// Attends one program in a login session of this user's; only systemd starts it, for the listener.
    Usher(Identity),
    Help,
    Version,
}

/// The listener's options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) listen: Vec<ListenAddress>,
    pub(crate) config: PathBuf,
    pub(crate) secret_file: PathBuf,
    pub(crate) runtime_directory: PathBuf,
    pub(crate) idle_timeout: Duration,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            config: "/etc/guestline/agent.toml".into(),
            secret_file: "/etc/guestline/secret".into(),
            runtime_directory: "/run/guestline".into(),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A command line that makes no sense.
#[derive(Debug, Error)]
#[error("{0}\nTry --help.")]
pub(crate) struct UsageError(#[from] lexopt::Error);

impl Command {
    /// Of this process's arguments.
    pub(crate) fn of_process() -> Result<Self, UsageError> {
        Ok(parse(Parser::from_env())?)
    }
}

fn parse(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let mut listening = Listening::default();
    let mut is_first = true;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => listening.listen.push(parser.value()?.parse()?),
            Arg::Long("config") => listening.config = parser.value()?.into(),
            Arg::Long("secret-file") => listening.secret_file = parser.value()?.into(),
            Arg::Long("runtime-directory") => listening.runtime_directory = parser.value()?.into(),
            Arg::Long("idle-timeout") => {
                listening.idle_timeout = Duration::from_secs(parser.value()?.parse()?);
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Value(word) if is_first && word == "worker" => return Ok(Command::Worker),
            Arg::Value(word) if is_first && word == "usher" => {
                return Ok(Command::Usher(identity(&mut parser)?));
            }
            Arg::Value(word) if is_first && word == "freezer" => {
                let milliseconds = parser.value()?.parse()?;
                return Ok(Command::Freezer(Duration::from_millis(milliseconds)));
            }
            other => return Err(other.unexpected()),
        }
        is_first = false;
    }
    Ok(Command::Listen(listening))
}

/// `UID GID GROUP…`
fn identity(parser: &mut Parser) -> Result<Identity, lexopt::Error> {
    let (uid, gid) = (parser.value()?.parse()?, parser.value()?.parse()?);
    let mut groups = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(group) => groups.push(group.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Identity { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, lexopt::Error> {
        parse(Parser::from_args(words))
    }

    #[test]
    fn options_are_read_and_have_defaults() {
        let listening = Listening {
            listen: vec![ListenAddress::Vsock(9), ListenAddress::Unix("/a".into())],
            idle_timeout: Duration::from_secs(2),
            ..Listening::default()
        };
        let words = [
            "--listen",
            "vsock:9",
            "--idle-timeout=2",
            "--listen=unix:/a",
        ];
        assert_eq!(parsed(&words).unwrap(), Command::Listen(listening));
        assert_eq!(parsed(&[]).unwrap(), Command::Listen(Listening::default()));
        assert_eq!(parsed(&["worker", "--", "alice"]).unwrap(), Command::Worker);
        let freezer = Command::Freezer(Duration::from_millis(30));
        assert_eq!(parsed(&["freezer", "30"]).unwrap(), freezer);
        let usher = Command::Usher(Identity {
            uid: 1000,
            gid: 100,
            groups: vec![100, 27],
        });
        assert_eq!(
            parsed(&["usher", "1000", "100", "100", "27"]).unwrap(),
            usher
        );
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let wrong: [&[&str]; 9] = [
            &["--listen"],
            &["--listen", "tcp:1"],
            &["--idle-timeout", "-1"],
            &["--nonsense"],
            &["serve"],
            &["freezer"],
            &["usher", "1000"],
            &["usher", "1000", "100", "alice"],
            &["--listen", "vsock:9", "worker"],
        ];
        for words in wrong {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn help_names_every_option_and_its_default() {
        let defaults = Listening::default();
        for word in [
            "--listen",
            "--config",
            "--secret-file",
            "--runtime-directory",
            "--idle-timeout",
            "-h",
            "-V",
        ] {
            assert!(HELP.contains(word), "{word}");
        }
        for path in [
            &defaults.config,
            &defaults.secret_file,
            &defaults.runtime_directory,
        ] {
            assert!(HELP.contains(&*path.to_string_lossy()), "{path:?}");
        }
        assert!(HELP.contains(&format!("[default: {}]", defaults.idle_timeout.as_secs())));
    }
}

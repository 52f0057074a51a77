//! Why an image or a machine did not come about.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

/// A failed step, with what it was on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A file of ours.
    #[error("cannot {action} {}", path.display())]
    File {
        /// "read", "write", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that could not be started.
    #[error("cannot run {program}: install it with `{install}`")]
    Missing {
        /// Its name.
        program: String,
        /// What a person types.
        install: String,
    },
    /// A program that failed.
    #[error("`{command}` failed ({status}): {words}")]
    Failed {
        /// As it was called.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        words: String,
    },
    /// A step of a start that had no time left.
    #[error("the start had no time left to {doing}")]
    Late {
        /// What was given up.
        doing: String,
    },
    /// Something that a package should have.
    #[error("{package} has no {what}")]
    Incomplete {
        /// The package.
        package: String,
        /// What was looked for.
        what: String,
    },
    /// A machine of that name runs.
    #[error("machine {name:?} runs already: `cargo xtask vm stop {name}` ends it")]
    Running {
        /// Its name.
        name: String,
    },
    /// Another process is at it.
    #[error(
        "machine {name:?} is being started or ended by another process: try again when that is done"
    )]
    Busy {
        /// Its name.
        name: String,
    },
    /// No machine of that name.
    #[error("no machine {name:?}: `cargo xtask vm list` shows those there are")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A name that is no file name.
    #[error("{name:?} is no machine name: use a-z, 0-9 and -, at most 32")]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// A user that cannot be made.
    #[error(
        "{name:?} is no name for a new user: use a-z, 0-9, _ and -, at most 32, and none that is there already"
    )]
    InvalidUser {
        /// What was given.
        name: String,
    },
    /// A name that is no Debian package's.
    #[error("{package:?} is no name of a Debian package: use a-z, 0-9, +, - and .")]
    InvalidPackage {
        /// What was given.
        package: String,
    },
    /// Packages for an image that is not made of them.
    #[error("the minimal image has no packages, so it cannot have {package:?}: take debian")]
    NoPackages {
        /// The first.
        package: String,
    },
    /// It has no QEMU that lives.
    #[error("machine {name:?} does not run")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// It was to be ended.
    #[error("a process of machine {name:?} could not be ended")]
    Lives {
        /// Its name.
        name: String,
    },
    /// The machine ended before its agent answered.
    #[error("machine {name:?} ended before its agent answered; the end of its console:\n{console}")]
    Died {
        /// Its name.
        name: String,
        /// The last lines.
        console: String,
    },
    /// The machine runs, and its agent lets in whoever has not got its secret.
    #[error(
        "the agent of machine {name:?} does not ask for the machine's secret; the end of its console:\n{console}"
    )]
    Unguarded {
        /// Its name.
        name: String,
        /// The last lines.
        console: String,
    },
    /// The system gives no random bytes for a secret.
    #[error("no random bytes for the secret of machine {name:?}")]
    Random {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The machine runs, and its agent does not answer.
    #[error(
        "no agent answered in machine {name:?} within {limit:?}; the end of its console:\n{console}"
    )]
    NotReady {
        /// Its name.
        name: String,
        /// How long was waited.
        limit: Duration,
        /// The last lines.
        console: String,
    },
}

impl MachineError {
    /// For `map_err` on what touches files.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

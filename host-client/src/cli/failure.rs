//! How a failure is told to a person and to the shell.

use std::{error::Error as _, io, path::Path};

use guestline_client::{ConnectError, Error, ErrorReason, FolderError, RefusalReason, Vm};
use nix::errno::Errno;

use super::output::{printable, printable_path};

/// Why there is no limit, and what to do about it.
const NO_CGROUP: &str = "--memory, --pids and --cpus need cgroup v2, and the guest has none that its agent can use now \
    (`guestline info` names cgroup2 where it is); boot the guest with systemd.unified_cgroup_hierarchy=1, or leave them out";
const NO_CONTROLLER: &str = "the guest's cgroup v2 lacks the controller of one of the limits (memory, pids or cpu); give them \
    to the guest (no cgroup_disable= or cgroup v1 for them), or leave that limit out";

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody said which VM.
    NoEndpoint,
    /// An operation of the client.
    Guest {
        /// What was tried, as in "cannot read /x as alice".
        attempt: String,
        error: Box<Error>,
    },
    /// The host's side.
    Host { attempt: String, error: io::Error },
    /// Something else, told in full.
    Told(String),
    /// The reader of our stdout left.
    BrokenPipe,
}

impl From<io::Error> for Failure {
    /// What has no path is our own stdin or stdout.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Host {
            attempt: "input or output failed".into(),
            error,
        }
    }
}

/// Says what was tried when something fails.
pub(super) trait Trying<T> {
    /// `verb` as in "read".
    fn trying(self, verb: &str, path: &Path, vm: &Vm) -> Result<T, Failure>;
    /// The same where there is no path: `what` as in "list the users".
    fn trying_to(self, what: &str, vm: &Vm) -> Result<T, Failure>;
}

impl<T> Trying<T> for Result<T, Error> {
    fn trying(self, verb: &str, path: &Path, vm: &Vm) -> Result<T, Failure> {
        self.trying_to(&format!("{verb} {}", printable_path(path)), vm)
    }

    fn trying_to(self, what: &str, vm: &Vm) -> Result<T, Failure> {
        self.map_err(|error| match error {
            Error::Source(error) => Failure::from(error),
            error => Failure::Guest {
                attempt: format!("cannot {what} as {}", printable(vm.username().as_bytes())),
                error: Box::new(error),
            },
        })
    }
}

/// Says which of the host's files it was.
pub(super) trait OnHost<T> {
    fn on_host(self, verb: &str, path: &Path) -> Result<T, Failure>;
}

impl<T> OnHost<T> for io::Result<T> {
    fn on_host(self, verb: &str, path: &Path) -> Result<T, Failure> {
        let attempt = || format!("cannot {verb} {} on this host", printable_path(path));
        self.map_err(|error| Failure::Host {
            attempt: attempt(),
            error,
        })
    }
}

impl Failure {
    /// To stderr.
    pub(super) fn tell(&self) {
        if let Some(line) = self.line() {
            eprintln!("guestline: {line}");
        }
    }

    /// The one place where failures become text for a terminal, and so where a guest's words in them lose their
    /// control characters, whichever error brought them.
    fn line(&self) -> Option<String> {
        let text = match self {
            Self::NoEndpoint => {
                "which VM? Say --vm ENDPOINT or set GUESTLINE_VM, for example to vsock:3".into()
            }
            Self::Guest { attempt, error } => sentence(attempt, error),
            Self::Host { attempt, error } => format!("{attempt}: {error}"),
            Self::Told(text) => text.clone(),
            Self::BrokenPipe => return None,
        };
        Some(printable(text.as_bytes()))
    }

    /// `is_program`: of exec and shell, whose low codes belong to the program.
    pub(super) fn exit_code(&self, is_program: bool) -> u8 {
        match self {
            Self::NoEndpoint => 2,
            // 128 + SIGPIPE, as a shell reports a program that the signal ended.
            Self::BrokenPipe => 141,
            Self::Guest { error, .. } => match (&**error, is_program) {
                (Error::Connect { .. } | Error::Refused { .. } | Error::Lost(_), _) => 255,
                (_, false) => 1,
                (
                    Error::Operation {
                        reason, operation, ..
                    },
                    true,
                ) => not_run(*reason, operation),
                (_, true) => 125,
            },
            Self::Host { .. } | Self::Told(_) => {
                if is_program {
                    125
                } else {
                    1
                }
            }
        }
    }
}

/// As env(1) tells a program that could not be run.
fn not_run(reason: ErrorReason, step: &str) -> u8 {
    match reason {
        ErrorReason::NotFound if step == "exec" => 127,
        _ if step == "exec" => 126,
        _ => 125,
    }
}

fn sentence(attempt: &str, error: &Error) -> String {
    match error {
        Error::Connect { endpoint, source } => {
            let next = match source {
                ConnectError::InvalidUser { .. } => "",
                ConnectError::NotAnAgent(_) => "; is that the right endpoint?",
                ConnectError::NotPermitted(_) => "; try as the user who runs the VM",
                ConnectError::Unproven(_) => {
                    "; is that the right VM, and the right --secret-file for it?"
                }
                _ => "; is the machine running, and is this its endpoint?",
            };
            format!("no agent answers at {endpoint}: {}{next}", chain(source))
        }
        Error::Refused { reason, text, .. } => {
            let next = match reason {
                Some(RefusalReason::UserNotFound) => "; `guestline users` lists those it has",
                Some(RefusalReason::Busy) => "; try again in a moment",
                Some(RefusalReason::BadHello) => {
                    "; is this agent of another version? (guestline --version)"
                }
                Some(RefusalReason::Unauthenticated) => {
                    "; is --secret-file or GUESTLINE_SECRET_FILE this VM's?"
                }
                _ => "",
            };
            format!("{attempt}: {text}{next}")
        }
        Error::Operation {
            reason,
            errno,
            operation,
            path,
            message,
        } => {
            let path = printable_path(path);
            let place = match path.is_empty() || attempt.contains(&path) {
                true => String::new(),
                false => format!(", at {path}"),
            };
            format!(
                "{attempt}: {}{place}",
                explanation(*reason, *errno, operation, message)
            )
        }
        Error::Folder(error) => format!("{attempt}: on this host, {}", folder(error)),
        Error::Lost(_) => format!(
            "{attempt}: the connection to the agent was lost; whether it happened is not known"
        ),
        other => format!("{attempt}: {other}"),
    }
}

/// Why the guest could not, in a few words, with the kernel's name for it. Its own words are in it as they came: for
/// [`Failure::tell`].
pub(super) fn explanation(reason: ErrorReason, errno: i32, step: &str, message: &str) -> String {
    let name = match errno {
        0 => String::new(),
        number => format!(" ({:?})", Errno::from_raw(number)),
    };
    let words = match reason {
        ErrorReason::Unsupported if step == "cgroup" => NO_CGROUP.into(),
        // What the kernel says of a limit's file that is not there.
        ErrorReason::PermissionDenied if step == "cgroup" => NO_CONTROLLER.into(),
        // Not the kernel's word, but that of systemd, say.
        ErrorReason::PermissionDenied | ErrorReason::NotFound if errno == 0 => message.into(),
        ErrorReason::PermissionDenied => "permission denied by the guest's kernel".into(),
        ErrorReason::Errno => Errno::from_raw(errno).desc().to_lowercase(),
        ErrorReason::NotFound if step == "directory" => "no such directory to start in".into(),
        ErrorReason::NotFound => "it is not there".into(),
        ErrorReason::AlreadyExists => "it is there already".into(),
        ErrorReason::IsADirectory => "it is a directory".into(),
        ErrorReason::NotADirectory => "it is not a directory, or a part of the path is none".into(),
        ErrorReason::DirectoryNotEmpty => "the directory is not empty; rm -r removes all".into(),
        ErrorReason::NoSpace => "the guest's disk is full".into(),
        ErrorReason::ReadOnlyFileSystem => "the guest's file system is read-only".into(),
        ErrorReason::SpecialFile => "it is a pipe, socket or device, not a file".into(),
        ErrorReason::Unsupported if message.is_empty() => {
            "this agent cannot do that; is it older than this command? (guestline info)".into()
        }
        _ => message.into(),
    };
    format!("{words}{name}")
}

/// What went wrong with a folder of this host.
fn folder(error: &FolderError) -> String {
    match error {
        FolderError::Refused { errno, .. } => {
            format!("{error} failed: {}", errno.desc().to_lowercase())
        }
        FolderError::Unsafe { .. } => format!("nothing was touched outside of it: {error}"),
        other => other.to_string(),
    }
}

/// An error and its causes on one line.
fn chain(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(reason: ErrorReason, errno: i32, operation: &str) -> Failure {
        let error = Error::Operation {
            reason,
            errno,
            operation: operation.into(),
            path: "/root/x".into(),
            message: "words".into(),
        };
        let vm = Vm::new("vsock:3".parse().unwrap()).user("alice");
        Err::<(), _>(error)
            .trying("read", Path::new("/root/x"), &vm)
            .unwrap_err()
    }

    #[test]
    fn a_person_learns_what_failed_on_what_as_whom_and_why() {
        let Failure::Guest { attempt, error } = failure(ErrorReason::PermissionDenied, 13, "open")
        else {
            panic!("not the guest's");
        };
        assert_eq!(
            sentence(&attempt, &error),
            "cannot read /root/x as alice: permission denied by the guest's kernel (EACCES)"
        );
        // Of a whole directory, say, it was one file within.
        assert_eq!(
            sentence("cannot remove /root as alice", &error),
            "cannot remove /root as alice: permission denied by the guest's kernel (EACCES), at /root/x"
        );
    }

    #[test]
    fn a_limit_that_cannot_be_kept_is_told_with_what_it_needs() {
        let said = |reason, errno| {
            let Failure::Guest { attempt, error } = failure(reason, errno, "cgroup") else {
                panic!("not the guest's");
            };
            sentence(&attempt, &error)
        };
        let absent = said(ErrorReason::Unsupported, 95);
        assert!(absent.contains("need cgroup v2") && absent.contains("boot the guest with"));
        let partly = said(ErrorReason::PermissionDenied, 13);
        assert!(partly.contains("lacks the controller"), "{partly}");
    }

    #[test]
    fn nothing_that_a_guest_says_commands_the_terminal() {
        let words = "a\u{1b}]0;owned\u{7}\n\u{9b}31m\u{202e}";
        let operation = |reason| Error::Operation {
            reason,
            errno: 0,
            operation: words.into(),
            path: words.into(),
            message: words.into(),
        };
        let refused = Error::Refused {
            user: words.into(),
            reason: None,
            text: words.into(),
        };
        let vm = Vm::new("vsock:3".parse().unwrap()).user(words);
        let lines = [
            Error::Protocol(words.into()),
            operation(ErrorReason::PermissionDenied),
            operation(ErrorReason::Unsupported),
            operation(ErrorReason::Internal),
            refused,
        ]
        .map(|error| Err::<(), _>(error).trying_to("read", &vm).unwrap_err())
        .into_iter()
        .chain([Failure::Told(words.into())])
        .map(|failure| failure.line().expect("it is told"));
        for line in lines {
            let escaped = r"a\u{1b}]0;owned\u{7}\n\u{9b}31m\u{202e}";
            assert!(line.contains(escaped), "{line:?}");
            let is_plain = |c: char| !c.is_control() && c.is_ascii();
            assert!(line.chars().all(is_plain), "{line:?}");
        }
    }

    #[test]
    fn programs_that_do_not_start_end_as_env_ends() {
        let code = |reason, errno, step| failure(reason, errno, step).exit_code(true);
        assert_eq!(code(ErrorReason::NotFound, 2, "exec"), 127);
        assert_eq!(code(ErrorReason::PermissionDenied, 13, "exec"), 126);
        assert_eq!(code(ErrorReason::ExecFormat, 8, "exec"), 126);
        assert_eq!(code(ErrorReason::NotFound, 2, "directory"), 125);
        assert_eq!(
            failure(ErrorReason::NotFound, 2, "open").exit_code(false),
            1
        );
        let vm = Vm::new("vsock:3".parse().unwrap());
        let lost = Err::<(), _>(Error::Lost(None))
            .trying_to("run true", &vm)
            .unwrap_err();
        assert_eq!((lost.exit_code(true), lost.exit_code(false)), (255, 255));
    }
}

//! A session channel: what the client asks for first, and then one shell, command or subsystem.
//!
//! ```text
//! opened ─► pty-req, env, window-change … ─► shell | exec | subsystem sftp ─► exit-status ─► closed
//! ```
//!
//! Requests arrive here in the order in which the client sent them, with its data between them; that they were taken or
//! not was answered at once by the handler.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    access::Access,
    client::Client,
    inbox::{Inbox, Request},
    notices::Notices,
    program, sftp,
};

/// Variables that a client may set, as OpenSSH's servers take them on Debian; and what a terminal is called, for programs
/// without one.
const VARIABLES: [&str; 3] = ["LANG", "TERM", "COLORTERM"];
const VARIABLE_PREFIX: &str = "LC_";

/// Of one channel, and of one value.
const MAX_VARIABLES: usize = 32;
const MAX_VALUE: usize = 4096;

/// The one subsystem.
const SFTP: &str = "sftp";

/// A terminal that does not know its size has this one, as ever.
const DEFAULT_SIZE: (u32, u32) = (80, 24);

/// What a program is started with.
#[derive(Clone, Debug, Default)]
pub(super) struct Circumstances {
    pub(super) terminal: Option<Terminal>,
    pub(super) variables: Vec<(String, String)>,
}

/// A pseudo-terminal to be.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) columns: u32,
    pub(super) rows: u32,
}

/// What the client wants to run.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Shell,
    Command(Bytes),
    Sftp,
}

/// Whether a variable is passed on.
pub(super) fn takes_variable(name: &str, value: &str) -> bool {
    let known = VARIABLES.contains(&name) || name.starts_with(VARIABLE_PREFIX);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    known && name.len() <= 64 && name.bytes().all(plain) && takes_value(value)
}

/// Of a variable, and of a terminal's name.
pub(super) fn takes_value(value: &str) -> bool {
    value.len() <= MAX_VALUE && !value.contains('\0')
}

/// Whether there is such a subsystem.
pub(super) fn has_subsystem(name: &str) -> bool {
    name == SFTP
}

/// A size that a terminal can have.
pub(super) fn size(columns: u32, rows: u32) -> (u32, u32) {
    let bounded = |number: u32, default| match number {
        0 => default,
        number => number.min(u16::MAX.into()),
    };
    (
        bounded(columns, DEFAULT_SIZE.0),
        bounded(rows, DEFAULT_SIZE.1),
    )
}

/// Serves the channel to its end. `notices` are what the client should read first.
pub(super) async fn serve(
    mut inbox: Inbox,
    client: Client,
    access: Arc<Access>,
    notices: Arc<Notices>,
) {
    let Some((wanted, circumstances)) = gather(&mut inbox).await else {
        return;
    };
    for notice in notices.take(circumstances.terminal.is_some()) {
        if client.say(notice.text()).await.is_err() {
            return;
        }
    }
    match wanted {
        Wanted::Sftp => sftp::serve(&mut inbox, &client, &access).await,
        wanted => program::run(wanted, circumstances, &mut inbox, &client, &access).await,
    }
    client.close().await;
}

/// Until something is to be run. `None`: the client closed the channel before.
async fn gather(inbox: &mut Inbox) -> Option<(Wanted, Circumstances)> {
    let mut it = Circumstances::default();
    loop {
        match inbox.next().await? {
            Request::Terminal {
                term,
                columns,
                rows,
            } => {
                it.terminal = Some(Terminal {
                    term,
                    columns,
                    rows,
                });
            }
            Request::Resize { columns, rows } => {
                if let Some(terminal) = &mut it.terminal {
                    (terminal.columns, terminal.rows) = (columns, rows);
                }
            }
            Request::Variable { name, value } if it.variables.len() < MAX_VARIABLES => {
                it.variables.push((name, value));
            }
            Request::Shell => return Some((Wanted::Shell, it)),
            Request::Command(line) => return Some((Wanted::Command(line), it)),
            Request::Sftp => return Some((Wanted::Sftp, it)),
            // What nobody is there for yet.
            Request::Variable { .. } | Request::Signal(_) | Request::Data(_) | Request::Eof => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_language_and_terminal_are_taken() {
        for name in ["LANG", "LC_ALL", "LC_CTYPE", "TERM"] {
            assert!(takes_variable(name, "C.UTF-8"), "{name}");
        }
        for name in ["PATH", "LD_PRELOAD", "LANGUAGE", "LC_X=y", "LC_\u{e9}", ""] {
            assert!(!takes_variable(name, "x"), "{name}");
        }
        assert!(!takes_variable("LANG", "a\0b"));
        assert!(!takes_variable("LANG", &"x".repeat(MAX_VALUE + 1)));
    }

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        assert_eq!(size(0, 0), (80, 24));
        assert_eq!(size(132, 43), (132, 43));
        assert_eq!(size(u32::MAX, 1), (65535, 1));
    }
}

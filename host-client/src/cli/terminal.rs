//! This host's terminal: raw while a guest's program owns it, and as it was afterwards.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Raw mode of stdin, until dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` where stdin is no terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody could be told here, and the terminal may be gone.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Columns and rows of the terminal; 80 by 24 where there is none.
pub(super) fn size() -> (u32, u32) {
    console::Term::stdout()
        .size_checked()
        .map_or((80, 24), |(rows, columns)| (columns.into(), rows.into()))
}

/// The value of TERM that the guest's program gets; empty lets the agent choose.
pub(super) fn kind() -> String {
    std::env::var("TERM").unwrap_or_default()
}

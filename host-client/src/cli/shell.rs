//! `guestline shell`.

use std::path::PathBuf;

use guestline_client::Vm;

use super::{
    Outcome,
    session::{Passing, session},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to start; the user's home otherwise
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
    /// In a login session of the guest's systemd: with PAM's limits and XDG_RUNTIME_DIR, and listed by loginctl
    #[arg(long)]
    session: bool,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let mut shell = vm.login_shell();
    if let Some(directory) = arguments.cwd {
        shell.current_dir(directory);
    }
    shell.login_session(arguments.session);
    let passing = Passing {
        tty: true,
        stdin: true,
    };
    session(&shell, passing, "open a shell", vm).await
}

//! `guestline shell`.

use std::path::PathBuf;

use guestline_client::Vm;

use super::{Outcome, exec::session};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to start; the user's home otherwise
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let mut shell = vm.login_shell();
    if let Some(directory) = arguments.cwd {
        shell.current_dir(directory);
    }
    session(&shell, true, true, "open a shell", vm).await
}

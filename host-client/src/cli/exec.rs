//! `guestline exec`.

use guestline_client::{OnDisconnect, Vm};

use super::{
    Outcome,
    program::Program,
    session::{Passing, session},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Pass our stdin on; the program's is empty otherwise, unless it has a terminal
    #[arg(short, long)]
    interactive: bool,
    /// What becomes of the program when we are killed or the connection is lost
    #[arg(long, value_name = "WHAT", default_value = "hang-up")]
    on_disconnect: Fate,
    #[command(flatten)]
    program: Program,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fate {
    /// SIGHUP, and after a while SIGKILL for what is left
    HangUp,
    /// SIGKILL at once
    Kill,
    /// It lives on
    Keep,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let (mut command, what) = arguments.program.command(vm);
    command.stdin(arguments.interactive);
    command.on_disconnect(match arguments.on_disconnect {
        Fate::HangUp => OnDisconnect::HangUp,
        Fate::Kill => OnDisconnect::Kill,
        Fate::Keep => OnDisconnect::Keep,
    });
    let passing = Passing {
        tty: arguments.tty,
        stdin: arguments.interactive || arguments.tty,
    };
    session(&command, passing, &what, vm).await
}

//! The command line: arguments, one module per group of commands, and how an end becomes an exit code.

mod complete;
mod copy;
mod exec;
mod failure;
mod files;
mod info;
mod list;
mod output;
mod progress;
mod shell;
mod terminal;
mod transfer;
mod write;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};
use guestline_client::{Endpoint, Vm};

use failure::Failure;

/// What a command gives to the shell that ran it.
type Outcome = Result<u8, Failure>;

/// Files and programs inside a VM, as any of its Linux users
///
/// The guest's kernel decides what that user may do; nothing is checked here.
///
/// Exit codes: exec and shell give the program's own code, 128+N for signal N, 124 for a timeout, 125 for a failure of
/// guestline, 126 for a program that cannot be run and 127 for one that is not there. The other commands give 1 for a
/// failure and 2 for wrong usage. All give 255 if the agent cannot be reached or the connection is lost.
#[derive(Debug, Parser)]
#[command(name = "guestline", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Where the agent is: `vsock:CID`, `hybrid:SOCKET` or `unix:SOCKET`; the first two may end in `:PORT`
    #[arg(long, global = true, env = "GUESTLINE_VM", value_name = "ENDPOINT")]
    vm: Option<Endpoint>,
    /// The Linux user to be in the guest
    #[arg(
        long,
        short,
        global = true,
        env = "GUESTLINE_USER",
        default_value = "root",
        value_name = "NAME"
    )]
    user: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program and give its exit code
    Exec(exec::Arguments),
    /// Open the user's login shell on a terminal
    Shell(shell::Arguments),
    /// List a directory
    Ls(list::Arguments),
    /// Write files to stdout
    Cat(files::CatArguments),
    /// Write stdin to a file, atomically
    Write(write::Arguments),
    /// Copy files between host and guest; `:PATH` is a path in the guest
    Cp(copy::Arguments),
    /// Remove files
    Rm(files::RmArguments),
    /// Make directories
    Mkdir(files::MkdirArguments),
    /// Show a file's attributes
    Stat(files::StatArguments),
    /// Rename a file
    Mv(files::MvArguments),
    /// Make a link
    Ln(files::LnArguments),
    /// Show what the guest and its agent are
    Info(info::Arguments),
    /// List the guest's users
    Users(info::Arguments),
    /// List the guest's groups
    Groups(info::Arguments),
    /// Print a completion script for a shell
    Completions(complete::Arguments),
}

/// Runs the command of the process's arguments.
pub(crate) fn main() -> ExitCode {
    let Arguments { target, command } = Arguments::parse();
    if let Command::Completions(arguments) = &command {
        return ExitCode::from(complete::run(arguments));
    }
    let is_program = matches!(command, Command::Exec(_) | Command::Shell(_));
    let outcome = connectable(target).and_then(|vm| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(run(command, &vm));
        // A thread may still wait for the terminal's next key; it must not hold us.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.exit_code(is_program))
        }
    }
}

fn connectable(target: Target) -> Result<Vm, Failure> {
    let endpoint = target.vm.ok_or(Failure::NoEndpoint)?;
    Ok(Vm::new(endpoint).user(target.user))
}

async fn run(command: Command, vm: &Vm) -> Outcome {
    match command {
        Command::Exec(arguments) => exec::run(arguments, vm).await,
        Command::Shell(arguments) => shell::run(arguments, vm).await,
        Command::Ls(arguments) => list::run(arguments, vm).await,
        Command::Cat(arguments) => files::cat(arguments, vm).await,
        Command::Write(arguments) => write::run(arguments, vm).await,
        Command::Cp(arguments) => copy::run(arguments, vm).await,
        Command::Rm(arguments) => files::rm(arguments, vm).await,
        Command::Mkdir(arguments) => files::mkdir(arguments, vm).await,
        Command::Stat(arguments) => files::stat(arguments, vm).await,
        Command::Mv(arguments) => files::mv(arguments, vm).await,
        Command::Ln(arguments) => files::ln(arguments, vm).await,
        Command::Info(arguments) => info::info(arguments, vm).await,
        Command::Users(arguments) => info::users(arguments, vm).await,
        Command::Groups(arguments) => info::groups(arguments, vm).await,
        Command::Completions(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

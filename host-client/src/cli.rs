//! The command line: arguments, one module per group of commands, and how an end becomes an exit code.

mod accounts;
mod attributes;
mod complete;
mod control;
mod copy;
mod detached;
mod exec;
mod failure;
mod files;
mod forward;
mod info;
mod list;
mod metrics;
mod output;
mod ports;
mod program;
mod progress;
mod resume;
mod secret;
mod services;
mod session;
mod shell;
mod space;
mod sum;
mod terminal;
mod transfer;
mod tree;
mod watch;
mod write;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use guestline_client::{Endpoint, Username, Vm};

use failure::Failure;

/// What a command gives to the shell that ran it.
type Outcome = Result<u8, Failure>;

/// Files and programs inside a VM, as any of its Linux users
///
/// The guest's kernel decides what that user may do; nothing is checked here.
///
/// Exit codes: exec, shell, run and attach give the program's own code, 128+N for signal N, 124 for a timeout, 125 for a failure of
/// guestline, 126 for a program that cannot be run and 127 for one that is not there. The other commands give 1 for a
/// failure and 2 for wrong usage. All give 255 if the agent cannot be reached, refuses that user, or the connection is lost.
#[derive(Debug, Parser)]
#[command(name = "guestline", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which VM, and who in it")]
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
        value_name = "NAME",
        value_parser = user
    )]
    user: String,
    /// The file with the VM's secret, closed to all but you; without it, the file `SOCKET.secret` beside the VM's socket
    /// if there is one
    #[arg(
        long,
        global = true,
        env = "GUESTLINE_SECRET_FILE",
        value_name = "PATH"
    )]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program and give its exit code
    Exec(exec::Arguments),
    /// Open the user's login shell on a terminal
    Shell(shell::Arguments),
    /// Run a program that lives on when we leave
    Run(detached::RunArguments),
    /// Join a program that `run` started: what it wrote, and what it writes
    Attach(detached::AttachArguments),
    /// List the programs that were run as this user
    Ps(detached::PsArguments),
    /// Send a signal to programs that `ps` lists
    Kill(detached::KillArguments),
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
    /// Print digests of files, computed in the guest
    Sum(sum::Arguments),
    /// Rename a file
    Mv(files::MvArguments),
    /// Make a link
    Ln(files::LnArguments),
    /// Change permission bits
    Chmod(attributes::ChmodArguments),
    /// Change owner and group
    Chown(attributes::ChownArguments),
    /// Show and change extended attributes
    Xattr(attributes::XattrArguments),
    /// Print what happens in a directory
    Watch(watch::Arguments),
    /// Show what the guest and its agent are
    Info(info::Arguments),
    /// List the guest's users, or add one
    Users(accounts::UsersArguments),
    /// List the guest's groups, or add one
    Groups(accounts::GroupsArguments),
    /// Listen on this host for what listens in the guest
    Forward(forward::Arguments),
    /// List what listens in the guest
    Ports(info::Arguments),
    /// Show the guest's disks, or the space where paths are
    Df(space::Arguments),
    /// Watch what the guest and its agent use
    Metrics(metrics::Arguments),
    /// List, change and read the logs of systemd's services
    Services(services::Arguments),
    /// Show or set the guest's clock
    Time(control::TimeArguments),
    /// Give the guest's random pool fresh bytes of this host's
    Reseed,
    /// Tell the guest that it was paused, restored or cloned: sets its clock, reseeds its random pool, renews its connections
    Resumed(control::ResumedArguments),
    /// Freeze the guest's file systems for a snapshot; they thaw by themselves after a time
    Freeze(control::FreezeArguments),
    /// Thaw the guest's file systems
    Thaw(control::ThawArguments),
    /// Power the guest off, or reboot it
    Shutdown(control::ShutdownArguments),
    /// Print a completion script for a shell
    Completions(complete::Arguments),
}

/// Runs the command of the process's arguments.
pub(crate) fn main() -> ExitCode {
    let Arguments { target, command } = Arguments::parse();
    if let Command::Completions(arguments) = &command {
        return ExitCode::from(complete::run(arguments));
    }
    let is_program = matches!(
        command,
        Command::Exec(_) | Command::Shell(_) | Command::Run(_) | Command::Attach(_)
    );
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

/// Checked here, so that a name that no Linux user has is wrong usage.
fn user(text: &str) -> Result<String, String> {
    let checked = Username::try_from(text).map_err(|error| error.to_string());
    checked.map(|_| text.into())
}

fn connectable(target: Target) -> Result<Vm, Failure> {
    let endpoint = target.vm.ok_or(Failure::NoEndpoint)?;
    let secret = secret::find(target.secret_file, &endpoint)?;
    let vm = Vm::new(endpoint).user(target.user);
    Ok(match secret {
        Some(secret) => vm.secret(secret),
        None => vm,
    })
}

async fn run(command: Command, vm: &Vm) -> Outcome {
    match command {
        Command::Exec(arguments) => exec::run(arguments, vm).await,
        Command::Shell(arguments) => shell::run(arguments, vm).await,
        Command::Run(arguments) => detached::run(arguments, vm).await,
        Command::Attach(arguments) => detached::attach(arguments, vm).await,
        Command::Ps(arguments) => detached::ps(arguments, vm).await,
        Command::Kill(arguments) => detached::kill(arguments, vm).await,
        Command::Ls(arguments) => list::run(arguments, vm).await,
        Command::Cat(arguments) => files::cat(arguments, vm).await,
        Command::Write(arguments) => write::run(arguments, vm).await,
        Command::Cp(arguments) => copy::run(arguments, vm).await,
        Command::Rm(arguments) => files::rm(arguments, vm).await,
        Command::Mkdir(arguments) => files::mkdir(arguments, vm).await,
        Command::Stat(arguments) => files::stat(arguments, vm).await,
        Command::Sum(arguments) => sum::run(arguments, vm).await,
        Command::Mv(arguments) => files::mv(arguments, vm).await,
        Command::Ln(arguments) => files::ln(arguments, vm).await,
        Command::Chmod(arguments) => attributes::chmod(arguments, vm).await,
        Command::Chown(arguments) => attributes::chown(arguments, vm).await,
        Command::Xattr(arguments) => attributes::xattr(arguments, vm).await,
        Command::Watch(arguments) => watch::run(arguments, vm).await,
        Command::Info(arguments) => info::info(arguments, vm).await,
        Command::Users(arguments) => accounts::users(arguments, vm).await,
        Command::Groups(arguments) => accounts::groups(arguments, vm).await,
        Command::Forward(arguments) => forward::run(arguments, vm).await,
        Command::Ports(arguments) => ports::run(arguments, vm).await,
        Command::Df(arguments) => space::run(arguments, vm).await,
        Command::Metrics(arguments) => metrics::run(arguments, vm).await,
        Command::Services(arguments) => services::run(arguments, vm).await,
        Command::Time(arguments) => control::time(arguments, vm).await,
        Command::Reseed => control::reseed(vm).await,
        Command::Resumed(arguments) => control::resumed(arguments, vm).await,
        Command::Freeze(arguments) => control::freeze(arguments, vm).await,
        Command::Thaw(arguments) => control::thaw(arguments, vm).await,
        Command::Shutdown(arguments) => control::shutdown(arguments, vm).await,
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

//! `cargo xtask`: everything that is done with this workspace besides `cargo build`. A module a command.

mod agent;
mod bench;
mod demo;
mod fuzz;
mod node;
mod packages;
mod python;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use guestline_machine::{ImageKind, Setup};

/// Demonstrates, tests and builds Guestline. What is missing on this machine is fetched and cached under target/.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boots a machine and shows what Guestline does in it; fails if a line is not true.
    Demo {
        /// Leaves the machine up and prints lines to try.
        #[arg(long)]
        keep: bool,
    },
    /// Runs all tests: unit tests, the agent over a Unix socket, and real machines.
    Test,
    /// Measures a machine beside the tools that people use, and the raw limit; writes bench/results.
    Bench(bench::Bench),
    /// Does everything at random in a machine, kills processes of the agent meanwhile, and checks what must always hold.
    Soak {
        /// For how long.
        #[arg(default_value_t = 10)]
        minutes: u64,
        /// Repeats an earlier run's choices; a new one is made and printed otherwise.
        #[arg(long)]
        seed: Option<u64>,
        /// Not in a machine: against the agent over a Unix socket.
        #[arg(long)]
        local: bool,
    },
    /// Builds the static agent, checks that it is static, and prints its path.
    Agent,
    /// Fuzzes each parser of a stranger's bytes for a time.
    Fuzz {
        /// Of each target.
        #[arg(default_value_t = 600)]
        seconds: u32,
        /// Only this one.
        #[arg(long)]
        target: Option<String>,
    },
    /// Makes an image and prints where it is.
    Image { image: Image },
    /// Starts, stops, pauses and lists machines.
    #[command(subcommand)]
    Vm(vm::VmCommand),
}

/// Which image.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Image {
    /// Kernel, busybox and the agent: seconds to boot.
    Minimal,
    /// Debian with systemd.
    Debian,
}

impl From<Image> for ImageKind {
    fn from(image: Image) -> Self {
        match image {
            Image::Minimal => Self::Minimal,
            Image::Debian => Self::Debian,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { keep } => demo::demo(keep),
        Command::Test => test::test(),
        Command::Bench(bench) => bench.run(),
        Command::Soak {
            minutes,
            seed,
            local,
        } => test::soak(minutes, seed, local),
        Command::Agent => {
            println!("{}", agent::build()?.display());
            Ok(())
        }
        Command::Fuzz { seconds, target } => fuzz::fuzz(
            &fuzz::build(workspace::cargo())?,
            seconds,
            target.as_deref(),
            None,
        ),
        Command::Image { image } => {
            println!(
                "{}",
                Setup::new(&workspace::target())
                    .image(image.into())?
                    .display()
            );
            Ok(())
        }
        Command::Vm(command) => vm::run(command),
    }
}

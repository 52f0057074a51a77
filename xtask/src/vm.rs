//! `cargo xtask vm`: machines that live on without this process.

use std::time::Duration;

use clap::Subcommand;
use guestline_machine::{Machine, MachineSpec, Setup};

use crate::{Image, agent, workspace};

/// The longest that a machine may take until its agent answers, on slow emulation.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Starts a machine and prints its endpoint once its agent answers.
    Start {
        /// a-z, 0-9 and -.
        name: String,
        #[arg(long, default_value = "minimal")]
        image: Image,
        /// A user to create; may be given more than once. The first has uid 1000.
        #[arg(long = "user", value_name = "NAME")]
        users: Vec<String>,
        /// In MiB.
        #[arg(long, default_value_t = 1024)]
        memory: u32,
    },
    /// Ends a machine.
    Stop { name: String },
    /// Lists machines.
    List,
}

pub(crate) fn run(command: VmCommand) -> anyhow::Result<()> {
    match command {
        VmCommand::Start {
            name,
            image,
            users,
            memory,
        } => {
            let setup = Setup::new(&workspace::target());
            let spec = MachineSpec {
                name,
                image: image.into(),
                users,
                memory,
                agent: agent::build()?,
            };
            let mut machine = Machine::start(&setup, &spec, true)?;
            machine.wait_ready(READY_LIMIT)?;
            println!("{}", machine.endpoint());
        }
        VmCommand::Stop { name } => guestline_machine::stop(&name)?,
        VmCommand::List => {
            for record in guestline_machine::list()? {
                let state = if record.is_running() {
                    "running"
                } else {
                    "gone"
                };
                println!(
                    "{}\t{state}\t{}",
                    record.name(),
                    record.endpoint().unwrap_or_default()
                );
            }
        }
    }
    Ok(())
}

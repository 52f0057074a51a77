//! `cargo xtask vm`: machines that live on without this process.

use std::time::Duration;

use clap::Subcommand;
use guestline_machine::{Machine, MachineError, MachineSpec, Setup};

use crate::{Image, agent, workspace};

/// The longest that a machine may take until its agent answers, on slow emulation beside other machines.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(300);

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
        /// A Debian package beyond those that the debian image has; may be given more than once.
        #[arg(long = "package", value_name = "NAME")]
        packages: Vec<String>,
        /// In MiB.
        #[arg(long, default_value_t = 1024)]
        memory: u32,
        /// Gives it no secret: whoever may open its vsock is let in.
        #[arg(long)]
        no_secret: bool,
    },
    /// Ends a machine.
    Stop { name: String },
    /// Has a machine stand still.
    Pause { name: String },
    /// Has it go on; `guestline resumed` tells the guest.
    Resume { name: String },
    /// Lists machines.
    List,
}

pub(crate) fn run(command: VmCommand) -> anyhow::Result<()> {
    match command {
        VmCommand::Start {
            name,
            image,
            users,
            packages,
            memory,
            no_secret,
        } => {
            // Before anything is built for it.
            if let Err(error @ MachineError::InvalidName { .. }) = guestline_machine::find(&name) {
                return Err(error.into());
            }
            let setup = Setup::new(&workspace::target());
            let spec = MachineSpec {
                name,
                image: image.into(),
                users,
                memory,
                cpus: None,
                agent: agent::build()?,
                disk: None,
                packages,
                channels: Vec::new(),
                secret: !no_secret,
            };
            let mut machine = Machine::start(&setup, &spec, true)?;
            machine.wait_ready(READY_LIMIT)?;
            if let Some(path) = machine.secret_file() {
                let path = path.display();
                eprintln!("guestline: its secret is in {path} (GUESTLINE_SECRET_FILE)");
            }
            println!("{}", machine.endpoint());
        }
        VmCommand::Stop { name } => guestline_machine::stop(&name)?,
        VmCommand::Pause { name } => guestline_machine::find(&name)?.pause()?,
        VmCommand::Resume { name } => guestline_machine::find(&name)?.resume()?,
        VmCommand::List => {
            for record in guestline_machine::list()? {
                let state = if record.is_running()? {
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

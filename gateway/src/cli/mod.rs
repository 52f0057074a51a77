//! The command line: `serve` is the gateway, `key` works on its database, and the rest asks a running gateway by its API.

mod api;
mod audit;
mod grant;
mod identity;
mod key;
mod serve;
mod ssh;
mod ssh_key;
mod token;
mod vm;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::store::Location;
use api::Api;

/// The first steps, on an empty folder.
const FIRST_STEPS: &str = "\
First steps:
  guestline-gateway serve --data-dir DIR --machines --agent AGENT    shows the admin key, once
  export GUESTLINE_ADMIN_KEY=glk_…
  guestline-gateway vm create --user alice                           prints the VM's id
  guestline-gateway identity create                                  prints the identity's id
  guestline-gateway grant add IDENTITY VM --user alice
  guestline-gateway token create IDENTITY                            shows the token, once";

/// Tokens that reach only the VMs and users they were granted.
#[derive(Debug, Parser)]
#[command(name = "guestline-gateway", version, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a gateway.
    Serve(Box<serve::Serve>),
    /// Admin keys, in the gateway's database.
    Key {
        #[command(flatten)]
        database: Database,
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Identities: who holds tokens and grants.
    Identity {
        #[command(flatten)]
        gateway: Gateway,
        #[command(subcommand)]
        command: identity::IdentityCommand,
    },
    /// Grants: which VMs an identity reaches, as which Linux users.
    Grant {
        #[command(flatten)]
        gateway: Gateway,
        #[command(subcommand)]
        command: grant::GrantCommand,
    },
    /// Tokens of an identity.
    Token {
        #[command(flatten)]
        gateway: Gateway,
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// SSH public keys of an identity.
    SshKey {
        #[command(flatten)]
        gateway: Gateway,
        #[command(subcommand)]
        command: ssh_key::SshKeyCommand,
    },
    /// Prints the gateway's SSH host key as a line of known_hosts.
    KnownHosts(ssh::KnownHosts),
    /// VMs.
    Vm {
        #[command(flatten)]
        gateway: Gateway,
        #[command(subcommand)]
        command: vm::VmCommand,
    },
    /// The audit log, the newest first.
    Audit {
        #[command(flatten)]
        gateway: Gateway,
        #[command(flatten)]
        filter: audit::AuditArguments,
    },
}

/// Where a gateway keeps its state.
#[derive(Debug, Args)]
pub(crate) struct Database {
    /// The folder of this gateway's own files: the database, the audit log, the machines.
    #[arg(
        long,
        env = "GUESTLINE_GATEWAY_DATA",
        value_name = "DIR",
        default_value = "/var/lib/guestline-gateway",
        global = true
    )]
    data_dir: PathBuf,
    /// postgres://…, for many gateways on one database; a file in the data folder otherwise.
    #[arg(
        long,
        env = "GUESTLINE_GATEWAY_DATABASE",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    database: Option<String>,
}

impl Database {
    fn location(&self) -> anyhow::Result<Location> {
        match &self.database {
            None => Ok(Location::Sqlite(self.data_dir.join("gateway.db"))),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Location::Postgres(url.clone()))
            }
            Some(_) => anyhow::bail!("--database must be a postgres:// URL"),
        }
    }
}

/// Which gateway to ask, and as whom.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// The running gateway.
    #[arg(
        long,
        env = "GUESTLINE_GATEWAY",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    url: String,
    /// A file with the admin key; the environment's GUESTLINE_ADMIN_KEY otherwise. Never an argument: those are for all to see.
    #[arg(long, value_name = "FILE", global = true)]
    admin_key_file: Option<PathBuf>,
    /// Prints the gateway's JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Does what the arguments say.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Serve(serve) => serve.run().await,
        Command::Key { database, command } => command.run(&database).await,
        Command::Identity { gateway, command } => command.run(&Api::new(gateway)?).await,
        Command::Grant { gateway, command } => command.run(&Api::new(gateway)?).await,
        Command::Token { gateway, command } => command.run(&Api::new(gateway)?).await,
        Command::SshKey { gateway, command } => command.run(&Api::new(gateway)?).await,
        Command::KnownHosts(command) => command.run(),
        Command::Vm { gateway, command } => command.run(&Api::new(gateway)?).await,
        Command::Audit { gateway, filter } => filter.run(&Api::new(gateway)?).await,
    }
}

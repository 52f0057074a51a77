//! `guestline-gateway ssh-key`.

use std::{fs, io::Read, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api::{Api, field, lines};

#[derive(Debug, Subcommand)]
pub(super) enum SshKeyCommand {
    /// Registers a public key for an identity and prints its id.
    Add {
        identity: String,
        /// A .pub file of ssh-keygen; `-` is stdin.
        file: PathBuf,
        /// For people; the key's comment otherwise.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists an identity's keys.
    List { identity: String },
    /// Removes a key, by its id.
    Remove { identity: String, key: String },
}

impl SshKeyCommand {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        match self {
            Self::Add {
                identity,
                file,
                name,
            } => {
                let body = json!({"publicKey": read(file)?, "name": name});
                let answer = api.post(&keys(identity), body).await?;
                api.show(&answer, |answer| field(answer, "id").into());
            }
            Self::List { identity } => {
                let answer = api.get(&keys(identity)).await?;
                api.show(&answer, |answer| lines(answer, "sshKeys", line));
            }
            Self::Remove { identity, key } => {
                let answer = api.delete(&[&keys(identity)[..], &[key]].concat()).await?;
                api.show(&answer, |_| String::new());
            }
        }
        Ok(())
    }
}

fn keys(identity: &str) -> [&str; 5] {
    ["identity", "v1", "identities", identity, "ssh-keys"]
}

fn line(key: &Value) -> String {
    format!(
        "{}  {}  {}",
        field(key, "id"),
        field(key, "fingerprint"),
        field(key, "name")
    )
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

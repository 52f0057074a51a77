//! `guestline-gateway grant`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::{Api, field, lines};

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Grants a VM to an identity.
    Add {
        identity: String,
        vm: String,
        #[command(flatten)]
        users: Users,
    },
    /// Changes which Linux users a grant reaches.
    Set {
        identity: String,
        vm: String,
        #[command(flatten)]
        users: Users,
    },
    /// Lists an identity's grants.
    List { identity: String },
    /// Revokes a grant.
    Revoke { identity: String, vm: String },
}

/// The Linux users of a grant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Users {
    /// As this Linux user; may be given several times.
    #[arg(long = "user")]
    users: Vec<String>,
    /// As any Linux user, root too.
    #[arg(long)]
    any_user: bool,
    /// As nobody: the grant stays, and reaches nothing.
    #[arg(long)]
    nobody: bool,
}

impl Users {
    fn to_body(&self) -> Value {
        let users = (!self.any_user).then_some(&self.users);
        json!({"allowedUsers": users})
    }
}

impl GrantCommand {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        match self {
            Self::Add {
                identity,
                vm,
                users,
            } => {
                let answer = api.post(&grant(identity, vm), users.to_body()).await?;
                api.show(&answer, |answer| field(answer, "id").into());
            }
            Self::Set {
                identity,
                vm,
                users,
            } => {
                let answer = api.put(&grant(identity, vm), users.to_body()).await?;
                api.show(&answer, |answer| field(answer, "id").into());
            }
            Self::List { identity } => {
                let answer = api.get(&grant(identity, "")[..6]).await?;
                api.show(&answer, |answer| lines(answer, "permissions", line));
            }
            Self::Revoke { identity, vm } => {
                let answer = api.delete(&grant(identity, vm)).await?;
                api.show(&answer, |_| String::new());
            }
        }
        Ok(())
    }
}

fn grant<'a>(identity: &'a str, vm: &'a str) -> [&'a str; 7] {
    [
        "identity",
        "v1",
        "identities",
        identity,
        "permissions",
        "vm",
        vm,
    ]
}

fn line(grant: &Value) -> String {
    let users = match grant["allowedUsers"].as_array() {
        None => "any user".into(),
        Some(users) if users.is_empty() => "nobody".into(),
        Some(users) => users
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
    };
    format!("{}  {users}", field(grant, "vmId"))
}

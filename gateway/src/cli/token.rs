//! `guestline-gateway token`.

use clap::Subcommand;
use serde_json::json;

use super::api::{Api, field, lines};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Creates a token and prints it: it is shown this once.
    Create {
        identity: String,
        /// It is refused after so many seconds; valid until it is revoked otherwise.
        #[arg(long)]
        expires_in: Option<u64>,
    },
    /// Lists the ids of an identity's tokens.
    List { identity: String },
    /// Revokes a token, by its id.
    Revoke { identity: String, token: String },
}

impl TokenCommand {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        match self {
            Self::Create {
                identity,
                expires_in,
            } => {
                let answer = api
                    .post(&tokens(identity), json!({"expiresInSeconds": expires_in}))
                    .await?;
                api.show(&answer, |answer| field(answer, "token").into());
            }
            Self::List { identity } => {
                let answer = api.get(&tokens(identity)).await?;
                api.show(&answer, |answer| {
                    lines(answer, "tokens", |item| field(item, "id").into())
                });
            }
            Self::Revoke { identity, token } => {
                let answer = api
                    .delete(&[&tokens(identity)[..], &[token]].concat())
                    .await?;
                api.show(&answer, |_| String::new());
            }
        }
        Ok(())
    }
}

fn tokens(identity: &str) -> [&str; 5] {
    ["identity", "v1", "identities", identity, "tokens"]
}

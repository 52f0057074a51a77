//! `guestline-gateway identity`.

use clap::Subcommand;
use serde_json::json;

use super::api::{Api, field, lines};

const IDENTITIES: [&str; 3] = ["identity", "v1", "identities"];

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Creates an identity and prints its id.
    Create,
    /// Lists identities.
    List {
        /// Leaves out so many.
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Deletes an identity, its tokens and its grants.
    Delete { identity: String },
}

impl IdentityCommand {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        match self {
            Self::Create => {
                let answer = api.post(&IDENTITIES, json!({})).await?;
                api.show(&answer, |answer| field(answer, "id").into());
            }
            Self::List { offset, limit } => {
                let query = format!("?offset={offset}&limit={limit}");
                let answer = api.get(&[&IDENTITIES[..], &[&query]].concat()).await?;
                api.show(&answer, |answer| {
                    lines(answer, "identities", |item| field(item, "id").into())
                });
            }
            Self::Delete { identity } => {
                let answer = api.delete(&[&IDENTITIES[..], &[identity]].concat()).await?;
                api.show(&answer, |_| String::new());
            }
        }
        Ok(())
    }
}

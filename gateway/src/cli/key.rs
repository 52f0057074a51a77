//! `guestline-gateway key`: admin keys, in the database itself, for who has it and lost the key.

use anyhow::bail;
use clap::Subcommand;

use super::Database;
use crate::{
    ids::KeyId,
    sessions::{Holder, Secret},
    store::Store,
};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Creates an admin key and prints it: it is shown this once.
    Create,
    /// Lists the ids of the admin keys.
    List,
    /// Revokes an admin key, by its id.
    Revoke { key: String },
}

impl KeyCommand {
    pub(super) async fn run(&self, database: &Database) -> anyhow::Result<()> {
        let store = Store::open(&database.location()?).await?;
        match self {
            Self::Create => {
                let secret = Secret::new_key();
                let Holder::AdminKey(id) = secret.holder() else {
                    bail!("a new key is none")
                };
                store.add_key(id, &secret.hash()).await?;
                println!("{}", secret.reveal());
            }
            Self::List => store.keys().await?.iter().for_each(|key| println!("{key}")),
            Self::Revoke { key } => {
                let revoked = match KeyId::parse(key) {
                    Some(id) => store.delete_key(&id).await?,
                    None => false,
                };
                if !revoked {
                    bail!("there is no admin key {key}");
                }
            }
        }
        store.close().await;
        Ok(())
    }
}

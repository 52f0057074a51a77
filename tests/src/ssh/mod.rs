//! Debian's own SSH clients against the gateway's binary in front of the agent's: `guestline-tests ssh AGENT GATEWAY
//! [FILTER]`. Each case gets a gateway on an empty database.

mod bounds;
mod client;
mod files;
mod forwarding;
mod logging_in;
pub mod machine;
mod matrix;
mod programs;
mod raw;
mod revoking;
mod shared;
mod transfers;

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    gateway::{self, Caller, Case, Gateway, World, text},
    runner::Tally,
};
pub use client::{Clients, Ended};

/// The longest that a case may take: some send a gibibyte.
const CASE_DEADLINE: Duration = Duration::from_secs(900);

/// All cases, with the names that are printed of them and the database that they want.
pub fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static Case)> {
    let suites = [
        (logging_in::CASES, "sqlite"),
        (matrix::CASES, "sqlite"),
        (programs::CASES, "sqlite"),
        (transfers::CASES, "sqlite"),
        (forwarding::CASES, "sqlite"),
        (revoking::CASES, "sqlite"),
        (bounds::CASES, "sqlite"),
        (shared::CASES, "postgresql"),
    ];
    let cases = suites
        .into_iter()
        .flat_map(|(cases, database)| cases.iter().map(move |case| (case, database)));
    cases.map(|(case, database)| {
        let name = case.name().trim_start_matches("guestline_tests::");
        (name, database, case)
    })
}

/// Runs the cases whose name contains `filter`.
pub async fn run(agent: &Path, program: &Path, filter: &str) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (name, database, case) in cases().filter(|(name, ..)| name.contains(filter)) {
        let world = gateway::world(agent, program, database);
        case.run(name, world, CASE_DEADLINE, &mut tally).await;
    }
    Ok(tally)
}

/// A gateway with SSH, a machine that an identity may use, its token, and clients that know the gateway.
struct Scene {
    gateway: Gateway,
    admin: Caller,
    identity: String,
    vm: String,
    token: Caller,
    token_id: String,
    clients: Clients,
}

impl Scene {
    /// `users` as in a grant.
    async fn new(world: &mut World, users: Value) -> anyhow::Result<Self> {
        Self::with(world, users, &[]).await
    }

    /// The same with more arguments of `serve`.
    async fn with(world: &mut World, users: Value, arguments: &[&str]) -> anyhow::Result<Self> {
        let fixed = ["--ssh-listen", "127.0.0.1:0", "--ssh-penalty", "0"];
        let gateway = world.gateway_with(&[&fixed, arguments].concat()).await?;
        let admin = gateway.admin()?;
        let vm = admin.register(world.registration()).await?;
        let identity = admin.identity().await?;
        admin.grant(&identity, &vm, users).await?;
        let (token_id, token) = admin.token(&identity).await?;
        let clients = Clients::new(world.program(), &gateway)?;
        Ok(Self {
            gateway,
            admin,
            identity,
            vm,
            token,
            token_id,
            clients,
        })
    }

    /// `VM+USER:TOKEN`.
    fn name(&self, user: &str) -> String {
        format!("{}+{user}:{}", self.vm, self.token.secret())
    }

    /// Of the identity in the API.
    fn identity_path(&self) -> String {
        format!("/identity/v1/identities/{}", self.identity)
    }

    /// Changes the identity's grant; `users` as in the API.
    async fn regrant(&self, users: Value) -> anyhow::Result<()> {
        let path = format!("{}/permissions/vm/{}", self.identity_path(), self.vm);
        let body = json!({"allowedUsers": users});
        self.admin.put(&path, body).await?.ok().map(drop)
    }

    /// Revokes the token.
    async fn revoke(&self) -> anyhow::Result<()> {
        let path = format!("{}/tokens/{}", self.identity_path(), self.token_id);
        self.admin.delete(&path).await?.ok().map(drop)
    }

    /// Registers a key for the identity: its id.
    async fn register_key(&self, private: &Path) -> anyhow::Result<String> {
        let public = std::fs::read_to_string(private.with_extension("pub"))?;
        let path = format!("{}/ssh-keys", self.identity_path());
        let body = json!({"publicKey": public});
        let added = self.admin.post(&path, body).await?.ok()?;
        Ok(text(&added, "id")?.to_owned())
    }

    /// Runs a line as a user, to its end.
    async fn ssh(&self, user: &str, line: &str) -> anyhow::Result<Ended> {
        self.clients.ssh(&self.name(user), &[line]).await
    }
}

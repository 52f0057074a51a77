//! The gateway's binary in front of the agent's own binary: `guestline-tests gateway AGENT GATEWAY [FILTER]`. Each case gets
//! a gateway on an empty database, once on SQLite and once on a real PostgreSQL server.

mod audit;
mod files;
mod fixture;
mod guests;
mod hooks;
mod interactive;
pub mod kills;
pub mod machines;
mod many;
mod matrix;
pub mod openapi;
mod outages;
mod revoking;
pub mod scale;
mod secrets;
mod sleeping;
mod terminals;

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{postgres::Postgres, runner::Outcome, runner::Tally, target::Target};
pub use fixture::{Answer, Caller, Gateway, Setting};
pub use hooks::Orchestrator;

/// The longest that a case may take, on a busy machine.
const CASE_DEADLINE: Duration = Duration::from_secs(600);

type Run = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A case, named after the behaviour it shows.
pub struct Case {
    name: &'static str,
    promises: &'static [u8],
    run: Run,
}

/// Lists async functions as cases, each with the promises that it shows: `a_wake_happens_once: [38]`.
#[macro_export]
macro_rules! gateway_cases {
    ($($name:ident $(: [$($promise:literal),+])?),* $(,)?) => {
        /// The cases of this suite.
        pub(crate) const CASES: &[$crate::gateway::Case] = &[$($crate::gateway::Case::new(
            concat!(module_path!(), "::", stringify!($name)),
            &[$($($promise),+)?],
            |world| Box::pin($name(world)),
        )),*];
    };
}

impl Case {
    /// For the macro.
    pub const fn new(name: &'static str, promises: &'static [u8], run: Run) -> Self {
        Self {
            name,
            promises,
            run,
        }
    }

    /// The lines of the promises that it shows; see [`promises`](crate::promises).
    pub fn promises(&self) -> &'static [u8] {
        self.promises
    }

    /// The suite and the function's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs it in a world to be made, and says how it went.
    pub async fn run(
        &self,
        shown: &str,
        world: impl Future<Output = anyhow::Result<World>>,
        deadline: Duration,
        tally: &mut Tally,
    ) {
        let run = async {
            let mut world = world.await?;
            (self.run)(&mut world).await
        };
        let failure = match tokio::time::timeout(deadline, run).await {
            Ok(Ok(())) => {
                tally.passed += 1;
                return println!("test {shown} ... ok");
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("did not end within {deadline:?}"),
        };
        tally.failed += 1;
        println!("test {shown} ... FAILED\n    {failure}");
    }
}

/// What a case has: an agent, a database, and as many gateways as it starts.
pub struct World {
    /// The agent, with root, alice and bob.
    pub agent: Target,
    /// The server, where the database is PostgreSQL.
    pub postgres: Option<Postgres>,
    setting: Setting,
    folders: Vec<tempfile::TempDir>,
    database: String,
}

impl World {
    /// A gateway on a data folder of its own.
    pub async fn gateway(&mut self) -> anyhow::Result<Gateway> {
        self.gateway_with(&[]).await
    }

    /// The same with more arguments.
    pub async fn gateway_with(&mut self, arguments: &[&str]) -> anyhow::Result<Gateway> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_owned();
        self.folders.push(folder);
        self.gateway_in(&path, arguments).await
    }

    /// The same on an earlier one's folder.
    pub async fn gateway_in(
        &self,
        folder: &std::path::Path,
        arguments: &[&str],
    ) -> anyhow::Result<Gateway> {
        let mut setting = self.setting.clone();
        setting
            .arguments
            .extend(arguments.iter().map(|&argument| argument.into()));
        Gateway::start(&setting, folder).await
    }

    /// The gateway's binary, for its commands.
    pub fn program(&self) -> &std::path::Path {
        &self.setting.program
    }

    /// Runs a command of the admin's, which asks the gateway or its database, and gives what it prints.
    pub async fn command(&self, gateway: &Gateway, words: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.program());
        command
            .args(words)
            .env("GUESTLINE_GATEWAY", gateway.url())
            .env("GUESTLINE_ADMIN_KEY", gateway.key().unwrap_or_default())
            .env("GUESTLINE_GATEWAY_DATA", gateway.folder());
        if let Some(url) = &self.setting.database {
            command.env("GUESTLINE_GATEWAY_DATABASE", url);
        }
        let output = command.output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// All that is in the database, as text, where that is PostgreSQL; SQLite's file is in the data folder.
    pub fn dump(&self) -> anyhow::Result<Option<String>> {
        self.postgres
            .as_ref()
            .map(|server| server.dump(&self.database))
            .transpose()
    }

    /// How the agent's machine is registered.
    pub fn registration(&self) -> Value {
        json!({"endpoint": self.agent.endpoint().to_string()})
    }

    /// A machine, and a token that reaches it as `users`.
    pub async fn granted(
        &self,
        gateway: &Gateway,
        users: Value,
    ) -> anyhow::Result<(String, Caller)> {
        let admin = gateway.admin()?;
        let vm = admin.register(self.registration()).await?;
        let identity = admin.identity().await?;
        admin.grant(&identity, &vm, users).await?;
        Ok((vm, admin.token(&identity).await?.1))
    }
}

/// The databases, by which the cases' names begin.
pub const DATABASES: [&str; 2] = ["sqlite", "postgresql"];

/// The cases on this database, with the names that are printed of them.
pub fn cases_on(database: &str) -> impl Iterator<Item = (String, &'static Case)> {
    let only_here = match database {
        "postgresql" => many::CASES,
        _ => scale::CASES,
    };
    let suites = [
        matrix::CASES,
        files::CASES,
        guests::CASES,
        interactive::CASES,
        terminals::CASES,
        revoking::CASES,
        sleeping::CASES,
        audit::CASES,
        secrets::CASES,
        outages::CASES,
        only_here,
    ];
    suites.into_iter().flatten().map(move |case| {
        let name = case.name.trim_start_matches("guestline_tests::gateway::");
        (format!("gateway::{database}::{name}"), case)
    })
}

/// Runs the cases whose name contains `filter` on both databases.
pub async fn run(agent: PathBuf, program: PathBuf, filter: &str) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for database in DATABASES {
        for (name, case) in cases_on(database).filter(|(name, _)| name.contains(filter)) {
            let world = world(&agent, &program, database);
            case.run(&name, world, CASE_DEADLINE, &mut tally).await;
        }
    }
    Ok(tally)
}

/// An agent, and a database of this kind.
pub async fn world(
    agent: &std::path::Path,
    program: &std::path::Path,
    database: &str,
) -> anyhow::Result<World> {
    world_of(Target::local(agent).await?, program, database)
}

/// The same with an agent that is there.
pub fn world_of(agent: Target, program: &std::path::Path, database: &str) -> anyhow::Result<World> {
    let postgres = match database {
        "postgresql" => Some(Postgres::start()?),
        _ => None,
    };
    let database = "gateway".to_owned();
    let url = postgres
        .as_ref()
        .map(|server| server.database(&database))
        .transpose()?;
    let setting = Setting {
        program: program.into(),
        database: url,
        arguments: vec!["--rate-per-token=0".into(), "--rate-per-source=0".into()],
        runtime: None,
    };
    Ok(World {
        agent,
        postgres,
        setting,
        folders: Vec::new(),
        database,
    })
}

/// A field that must be a text.
pub fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    value[name]
        .as_str()
        .with_context(|| format!("no {name} in {value}"))
}

/// A secret that differs from this one in its checksum: none of anybody's.
pub fn unlike(secret: &str) -> String {
    let (all_but_the_last, last) = secret.split_at(secret.len() - 1);
    format!("{all_but_the_last}{}", if last == "0" { "1" } else { "0" })
}

/// One path segment.
pub fn encode(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    path.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

//! A gateway with ten thousand machines and a hundred thousand grants and tokens: it starts at once, and a permitted command
//! costs little more than one without it. The case says that it works, with bounds for a busy machine and a debug build;
//! [`measure`] says what it costs: `cargo xtask bench --gateway`.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use guestline_client::Vm;
use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};

use super::{Caller, Gateway, World, world};
use crate::{gateway_cases, runner::Outcome};

gateway_cases![ten_thousand_machines_and_a_hundred_thousand_tokens_are_no_burden];

/// By SQL, since that many requests would take minutes: ids as the gateway makes them, hashes that nobody has a token for.
const FILL: &str = "
    CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) SELECT i FROM n;
    INSERT INTO identities (id, created_at) SELECT printf('i%019d', i), 0 FROM n WHERE i < 10000;
    INSERT INTO vms (id, kind, definition, state, state_since, endpoint, idle_timeout, last_activity, created_at)
        SELECT printf('v%019d', i), 'external', '{\"kind\":\"external\",\"hooks\":{}}', 'running', 0,
               'unix:/nonexistent/agent.sock', 300, 0, 0 FROM n WHERE i < 10000;
    INSERT INTO grants (id, identity, vm, allowed_users, granted_at, granted_by)
        SELECT printf('g%019d', i), printf('i%019d', i / 10), printf('v%019d', (i % 10) * 1000 + i / 10 % 1000),
               '[\"alice\"]', 0, 'nobody' FROM n;
    INSERT INTO tokens (id, identity, hash, created_at)
        SELECT printf('t%019d', i), printf('i%019d', i / 10), lower(hex(randomblob(32))), 0 FROM n;";

/// Of each kind, before anything is measured: connections are made and caches are warm.
const WARM_UP: usize = 50;

/// Starts of which the time is taken.
const STARTS: usize = 5;

/// A gateway on such a database, one more machine whose agent answers, and a token that reaches it as alice.
struct Scale {
    gateway: Gateway,
    folder: PathBuf,
    started_in: Duration,
    vm: String,
    alice: Caller,
    direct: Vm,
}

impl Scale {
    async fn new(world: &mut World) -> anyhow::Result<Self> {
        let gateway = world.gateway().await?;
        let folder = gateway.folder().to_owned();
        let key = gateway.key().context("no key")?.to_owned();
        gateway.terminate().await?;
        gateway.ended().await?;
        let url = format!("sqlite://{}", folder.join("gateway.db").display());
        let mut database = SqliteConnection::connect(&url).await?;
        database.execute(FILL).await?;
        database.close().await?;
        let begun = Instant::now();
        let gateway = world.gateway_in(&folder, &[]).await?;
        let started_in = begun.elapsed();
        let admin = gateway.caller(&key)?;
        ensure!(admin.get("/v1/vms").await?.ok()?["totalCount"] == 10_000);
        let vm = admin.register(world.registration()).await?;
        let identity = admin.identity().await?;
        admin.grant(&identity, &vm, json!(["alice"])).await?;
        let alice = admin.token(&identity).await?.1.user("alice");
        Ok(Self {
            gateway,
            folder,
            started_in,
            vm,
            alice,
            direct: world.agent.user("alice"),
        })
    }

    /// One command without the gateway and one through it, and what each took.
    async fn pair(&self) -> anyhow::Result<(Duration, Duration)> {
        let begun = Instant::now();
        ensure!(self.direct.shell("true").output().await?.status.success());
        let without = begun.elapsed();
        let begun = Instant::now();
        ensure!(self.alice.exec(&self.vm, "true").await?.ok()?["statusCode"] == 0);
        Ok((without, begun.elapsed()))
    }

    /// In turn, A B A B, so that what else the host does meets both alike.
    async fn pairs(&self, number: usize) -> anyhow::Result<Vec<(Duration, Duration)>> {
        let mut pairs = Vec::with_capacity(number);
        for _ in 0..number {
            pairs.push(self.pair().await?);
        }
        Ok(pairs)
    }

    /// In KiB, of the gateway.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let line = line.context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }
}

async fn ten_thousand_machines_and_a_hundred_thousand_tokens_are_no_burden(
    world: &mut World,
) -> Outcome {
    let scale = Scale::new(world).await?;
    scale.pairs(20).await?;
    let (started_in, memory) = (scale.started_in, scale.resident()?);
    ensure!(started_in < Duration::from_secs(10), "{started_in:?}");
    ensure!(memory < 256 * 1024, "{memory} KiB");
    Ok(())
}

/// What such a gateway costs.
#[derive(Debug)]
pub struct Figures {
    commands: usize,
    without: Vec<Duration>,
    with: Vec<Duration>,
    /// Of each pair: by how many per cent the second took longer.
    more: Vec<f64>,
    starts: Vec<Duration>,
    /// In KiB: after the start, and after all commands.
    memory: (u64, u64),
}

/// `commands` of each kind, by an agent and a gateway that are built as they are shipped.
pub async fn measure(agent: &Path, program: &Path, commands: usize) -> anyhow::Result<Figures> {
    let mut world = world(agent, program, "sqlite").await?;
    let scale = Scale::new(&mut world).await?;
    let before = scale.resident()?;
    scale.pairs(WARM_UP).await?;
    let pairs = scale.pairs(commands).await?;
    let after = scale.resident()?;
    let mut starts = vec![scale.started_in];
    let Scale {
        mut gateway,
        folder,
        ..
    } = scale;
    while starts.len() < STARTS {
        gateway.terminate().await?;
        gateway.ended().await?;
        let begun = Instant::now();
        gateway = world.gateway_in(&folder, &[]).await?;
        starts.push(begun.elapsed());
    }
    let more = pairs.iter().map(|(without, with)| {
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        (ratio - 1.0) * 100.0
    });
    Ok(Figures {
        commands,
        more: sorted(more.collect(), f64::total_cmp),
        without: sorted(pairs.iter().map(|pair| pair.0).collect(), Duration::cmp),
        with: sorted(pairs.iter().map(|pair| pair.1).collect(), Duration::cmp),
        starts: sorted(starts, Duration::cmp),
        memory: (before, after),
    })
}

fn sorted<T>(mut values: Vec<T>, order: impl FnMut(&T, &T) -> std::cmp::Ordering) -> Vec<T> {
    values.sort_by(order);
    values
}

/// The value below which that share of them lies, of sorted ones.
fn quantile<T: Copy>(values: &[T], share: f64) -> T {
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn millis(times: &[Duration]) -> String {
    let at = |share| quantile(times, share).as_secs_f64() * 1000.0;
    format!("{:.2} ({:.2}–{:.2})", at(0.5), at(0.1), at(0.9))
}

/// A table in Markdown.
impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = |times: &[Duration]| quantile(times, 0.5).as_secs_f64();
        let medians = (median(&self.with) / median(&self.without) - 1.0) * 100.0;
        let more = |share| quantile(&self.more, share);
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(out, "| | |\n|---|---:|")?;
        writeln!(
            out,
            "| `true` by alice's shell through the client library, ms | {} |",
            millis(&self.without)
        )?;
        writeln!(
            out,
            "| the same by `exec-await` with a token, ms | {} |",
            millis(&self.with)
        )?;
        writeln!(out, "| more, of the medians | {medians:.1} % |")?;
        writeln!(
            out,
            "| more, of each pair | {:.1} % ({:.1}–{:.1}) |",
            more(0.5),
            more(0.1),
            more(0.9)
        )?;
        writeln!(
            out,
            "| from the gateway's start until it listens, ms | {} |",
            millis(&self.starts)
        )?;
        writeln!(
            out,
            "| resident after the start, MiB | {:.1} |",
            mib(self.memory.0)
        )?;
        writeln!(
            out,
            "| resident after {} commands, MiB | {:.1} |",
            self.commands + WARM_UP,
            mib(self.memory.1)
        )
    }
}

//! `guestline-gateway serve`: composes the gateway, runs it, and ends it in order.

use std::{
    fs::{DirBuilder, File, TryLockError},
    net::SocketAddr,
    num::NonZeroU32,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use guestline_machine::ImageKind;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{Database, ssh::SshArguments};
use crate::{
    audit::{Audit, AuditWriter, LogFile, recover},
    http::{self, App, Limits, Parts, ServerConfig, Settings, Tls},
    machines::{Embedded, EmbeddedConfig, Machines},
    metrics::Metrics,
    sessions::{Holder, LiveSessions, Secret, Sessions},
    ssh,
    store::Store,
};

/// Between two clean-ups of the rate limits' memory.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Runs a gateway. What is said twice counts as said last.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct Serve {
    #[command(flatten)]
    database: Database,
    /// Where to listen. Port 0 is one that the system chooses.
    #[arg(
        long,
        env = "GUESTLINE_GATEWAY_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// A certificate chain as PEM, to serve HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Takes the peer's address from X-Forwarded-For, as a proxy in front sets it.
    #[arg(long)]
    behind_proxy: bool,
    /// Seconds that a sleeping VM may take to wake.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wake_timeout: u64,
    /// Seconds that requests may take to end after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_timeout: u64,
    /// Requests a second from one address; 0 is no limit.
    #[arg(long, value_name = "RATE", default_value_t = 200)]
    rate_per_source: u32,
    /// Requests a second with one token; 0 is no limit.
    #[arg(long, value_name = "RATE", default_value_t = 100)]
    rate_per_token: u32,
    /// MiB of the largest file that goes through one JSON body; larger ones are streamed.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    max_file: usize,
    /// MiB of a command's output that are kept.
    #[arg(long, value_name = "MIB", default_value_t = 8)]
    max_output: usize,
    /// Logs JSON lines.
    #[arg(long)]
    log_json: bool,
    #[command(flatten)]
    ssh: SshArguments,
    #[command(flatten)]
    machines: MachineArguments,
}

/// Machines of the gateway's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machines of its own")]
struct MachineArguments {
    /// Runs machines under QEMU here.
    #[arg(long, requires = "agent")]
    machines: bool,
    /// The static agent that goes into them.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// What they boot.
    #[arg(long, value_enum, default_value_t = Image::Debian)]
    image: Image,
    /// Where images are cached; the data folder otherwise.
    #[arg(long, value_name = "DIR")]
    image_cache: Option<PathBuf>,
    /// MiB of memory, unless the request says otherwise.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    machine_memory: u32,
    /// Seconds without an operation after which a machine sleeps, unless the request says otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    idle_timeout: u64,
}

/// What a machine boots.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Image {
    /// Kernel, busybox and the agent: seconds to boot, and nothing kept on a disk.
    Minimal,
    /// Debian with systemd.
    Debian,
}

impl From<Image> for ImageKind {
    fn from(image: Image) -> Self {
        match image {
            Image::Minimal => Self::Minimal,
            Image::Debian => Self::Debian,
        }
    }
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.log();
        let stop = on_signal()?;
        let data = self.database.data_dir.clone();
        let _held = hold(&data)?;
        let store = Store::open(&self.database.location()?).await?;
        show_first_key(&store).await?;
        let metrics = Metrics::new();
        store.abandon_changes().await?;
        let embedded = self.open_machines(&store).await?;
        let wake_limit = Duration::from_secs(self.wake_timeout);
        let machines = Machines::new(store.clone(), embedded, metrics.clone(), wake_limit)?;
        let log = LogFile::open(data.join("audit.jsonl"))?;
        recover(&log, &store).await?;
        let (audit, events) = Audit::new(log.clone(), metrics.clone());
        let writer = tokio::spawn(AuditWriter::new(log, store.clone(), events).run());
        let (sessions, live) = (Sessions::new(store.clone()), LiveSessions::default());
        // Until the last operation has ended: what is under way while the gateway drains can still be revoked, and is in use.
        let over = CancellationToken::new();
        let watchers = [
            tokio::spawn(live.clone().watch(sessions.clone(), over.clone())),
            tokio::spawn(machines.clone().watch_idle(over.clone())),
        ];
        let drained = tokio::spawn(pass_drain(
            stop.clone(),
            Duration::from_secs(self.drain_timeout),
        ));
        let ssh = ssh::Parts {
            sessions: sessions.clone(),
            live: live.clone(),
            machines: machines.clone(),
            audit: audit.clone(),
            metrics: metrics.clone(),
        };
        let ssh = self.listen_for_ssh(ssh, &stop).await?;
        let app = App::new(Parts {
            store: store.clone(),
            sessions,
            live: live.clone(),
            machines,
            audit,
            metrics,
            limits: Limits::new(
                NonZeroU32::new(self.rate_per_source),
                NonZeroU32::new(self.rate_per_token),
            ),
            settings: self.settings(),
        });
        let forgetter = tokio::spawn(forget_unused(app.clone(), stop.clone()));
        let router = http::router(app);
        let served = http::serve(self.server(), router, stop.clone(), |address| {
            tracing::info!(%address, "listening");
            println!("listening on {address}");
        });
        let served = served.await;
        stop.cancel();
        if let Some(ssh) = ssh {
            ssh.await.context("the SSH server failed")?;
        }
        // WebSockets live on without their server.
        tokio::select! {
            () = live.drained() => {}
            _ = drained => {}
        }
        live.close();
        over.cancel();
        forgetter.await?;
        for watcher in watchers {
            watcher.await?;
        }
        // All operations have ended and told their ends, or their tasks are gone: the log is complete when the writer is.
        writer.await.context("the audit log's writer failed")?;
        store.close().await;
        tracing::info!("ended");
        Ok(served?)
    }

    fn log(&self) {
        let filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        if self.log_json {
            logs.json().init();
        } else {
            logs.init();
        }
    }

    async fn open_machines(&self, store: &Store) -> anyhow::Result<Option<Embedded>> {
        let arguments = &self.machines;
        if !arguments.machines {
            return Ok(None);
        }
        let Some(agent) = arguments.agent.clone() else {
            bail!("--machines needs --agent")
        };
        let data = &self.database.data_dir;
        let config = EmbeddedConfig {
            agent,
            cache: arguments
                .image_cache
                .clone()
                .unwrap_or_else(|| data.clone()),
            image: arguments.image.into(),
            memory_mib: arguments.machine_memory,
        };
        Ok(Some(Embedded::open(config, data, store).await?))
    }

    /// Where it was asked for.
    async fn listen_for_ssh(
        &self,
        parts: ssh::Parts,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<JoinHandle<()>>> {
        let Some(config) = self.ssh.config(Duration::from_secs(self.drain_timeout)) else {
            return Ok(None);
        };
        let key = ssh::host_key(&self.database.data_dir)?;
        let server = ssh::Server::bind(config, parts, key).await?;
        let address = server.address();
        tracing::info!(%address, "listening for SSH");
        println!("listening for SSH on {address}");
        Ok(Some(tokio::spawn(server.run(stop.clone()))))
    }

    fn settings(&self) -> Settings {
        const MIB: usize = 1024 * 1024;
        Settings {
            max_file: self.max_file.saturating_mul(MIB),
            max_output: self.max_output.saturating_mul(MIB),
            idle_timeout: Duration::from_secs(self.machines.idle_timeout),
            behind_proxy: self.behind_proxy,
        }
    }

    fn server(&self) -> ServerConfig {
        let tls = self.tls_certificate.clone().zip(self.tls_key.clone());
        ServerConfig {
            address: self.listen,
            tls: tls.map(|(certificate, key)| Tls { certificate, key }),
            drain: Duration::from_secs(self.drain_timeout),
        }
    }
}

/// Makes the data folder, for the owner alone, and takes it for as long as the result lives: what is in it is one gateway's.
fn hold(data: &Path) -> anyhow::Result<File> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let path = data.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another gateway runs on the data folder {}: give each its own --data-dir",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// On an empty database: one admin key, on stdout and nowhere else.
async fn show_first_key(store: &Store) -> anyhow::Result<()> {
    let secret = Secret::new_key();
    let Holder::AdminKey(id) = secret.holder() else {
        bail!("a new key is none")
    };
    if store.add_first_key(id, &secret.hash()).await? {
        println!("admin key, shown this once: {}", secret.reveal());
    }
    Ok(())
}

/// Ends when what is under way has had its time.
async fn pass_drain(stop: CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
}

async fn forget_unused(app: App, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(FORGET_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => app.limits.forget_unused(),
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
fn on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: no new requests, the old ones may finish");
        cancelled.cancel();
    });
    Ok(stop)
}

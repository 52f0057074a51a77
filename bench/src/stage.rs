//! What is measured on: the machine as root and as alice, the peers that started, and how much of everything.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, ensure};
use guestline_client::{Endpoint, Vm};
use tempfile::TempDir;

use crate::{
    peers::{gateway::Gateway, qemu::QemuAgent, raw, raw::Raw, ssh::Ssh},
    sample::{Column, Contender},
};

/// The user that most is measured as.
pub(crate) const USER: &str = "alice";

/// A file system in the guest's memory, so that no disk is measured.
pub(crate) const GUEST: &str = "/mnt/bench";

/// Set up once for all sections.
pub(crate) struct Stage {
    pub(crate) root: Vm,
    pub(crate) alice: Vm,
    pub(crate) raw: Option<Raw>,
    pub(crate) ssh: Option<Ssh>,
    pub(crate) qemu: Option<QemuAgent>,
    pub(crate) gateway: Option<Gateway>,
    /// The `guestline` command.
    pub(crate) command: Option<PathBuf>,
    /// A folder of this host, in memory where it has /dev/shm.
    pub(crate) here: TempDir,
    pub(crate) quick: bool,
    /// Users besides alice who exist in the machine.
    pub(crate) others: Vec<String>,
}

impl Stage {
    /// Connects, makes the place in the guest, and starts the peers. Who does not start is in the second value.
    pub(crate) async fn set(
        endpoint: &Endpoint,
        channel: Option<PathBuf>,
        command: Option<PathBuf>,
        gateway: Option<PathBuf>,
        others: Vec<String>,
        quick: bool,
    ) -> anyhow::Result<(Self, BTreeMap<String, String>)> {
        let root = Vm::new(endpoint.clone());
        let alice = root.user(USER);
        let line = format!(
            "mkdir -p {GUEST} && mount -t tmpfs -o mode=1777,size=90%,nr_inodes=0 tmpfs {GUEST}"
        );
        let made = root.shell(line).output().await?;
        ensure!(made.status.success(), "cannot make {GUEST} in the guest");
        raw::install(&root).await?;
        let memory = PathBuf::from("/dev/shm");
        let memory = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let here = tempfile::Builder::new()
            .prefix("guestline-bench-")
            .tempdir_in(memory)?;

        let mut missing = BTreeMap::new();
        let mut note = |column: Column, error: anyhow::Error| {
            let why = format!("it did not start: {error:#}");
            eprintln!("bench: {}: {why}", column.0);
            missing.insert(column.0.to_owned(), why);
        };
        let raw = Raw::start(&root, 1000).await;
        let raw = raw.map_err(|error| note(Column::RAW, error)).ok();
        let ssh = match raw {
            Some(_) => Ssh::start(&root, &alice).await,
            None => Err(anyhow::anyhow!("it is reached through the raw baseline")),
        };
        let ssh = ssh.map_err(|error| note(Column::SSH, error)).ok();
        let qemu = match channel {
            Some(socket) => QemuAgent::start(&socket).await,
            None => Err(anyhow::anyhow!("no channel was given")),
        };
        let qemu = qemu.map_err(|error| note(Column::QEMU, error)).ok();
        let gateway = match gateway {
            Some(program) => Gateway::start(program, endpoint.clone()).await,
            None => Err(anyhow::anyhow!("no gateway was given")),
        };
        let gateway = gateway
            .map_err(|error| note(Column::GATEWAY_SCP, error))
            .ok();
        let stage = Self {
            root,
            alice,
            raw,
            ssh,
            qemu,
            gateway,
            command,
            here,
            quick,
            others,
        };
        Ok((stage, missing))
    }

    /// How often: less where it must be quick.
    pub(crate) fn rounds(&self, full: usize, quick: usize) -> (usize, bool) {
        (if self.quick { quick } else { full }, true)
    }

    /// Runs a line in the guest as root.
    pub(crate) async fn prepare(&self, line: &str) -> anyhow::Result<String> {
        let output = self.root.shell(line).output().await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "`{line}` failed in the guest: {said}"
        );
        String::from_utf8(output.stdout).context("not UTF-8")
    }
}

/// A contender for each peer that started.
pub(crate) fn with<'a, T>(
    contenders: &mut Vec<Contender<'a>>,
    peer: &'a Option<T>,
    contender: impl FnOnce(&'a T) -> Contender<'a>,
) {
    contenders.extend(peer.as_ref().map(contender));
}

//! What a run of the bench found: kept as JSON, into which a run of some sections alone is merged.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{plot, sample::Row, table};

/// All that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// On what.
    pub(crate) machine: Host,
    /// In the order of measuring.
    pub(crate) sections: Vec<Section>,
    /// Peers that did not start, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// Rows that belong together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    /// As `--only` takes it.
    pub(crate) name: String,
    /// For people.
    pub(crate) title: String,
    /// What was measured.
    pub(crate) rows: Vec<Row>,
}

/// The host and the machine, without a name or a path of theirs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Of the host.
    pub(crate) processors: usize,
    /// Of the host.
    pub(crate) model: String,
    /// "KVM" or "emulation".
    pub(crate) accelerator: String,
    /// How the host reaches the guest's vsock.
    pub(crate) transport: String,
    /// The guest's kernel.
    pub(crate) kernel: String,
    /// Processors of the guest.
    pub(crate) guest_processors: usize,
    /// MiB of the guest.
    pub(crate) guest_memory: u64,
    /// Whether the rows are those of `--quick`.
    pub(crate) quick: bool,
}

impl Host {
    /// One sentence.
    pub(crate) fn describe(&self) -> String {
        format!(
            "Host: {} processors, {}. Guest: Debian, Linux {}, {} processors, {} MiB, under {}; vsock by {}.{}",
            self.processors,
            self.model,
            self.kernel,
            self.guest_processors,
            self.guest_memory,
            self.accelerator,
            self.transport,
            if self.quick { " A quick run." } else { "" }
        )
    }
}

impl Report {
    /// Takes over what an earlier run on the same machine found and this one did not measure.
    pub(crate) fn merge(&mut self, file: &Path) -> anyhow::Result<()> {
        let Ok(text) = fs::read(file) else {
            return Ok(());
        };
        let old: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no report", file.display()))?;
        for (at, section) in old.sections.into_iter().enumerate() {
            if !self.sections.iter().any(|ours| ours.name == section.name) {
                self.sections.insert(at.min(self.sections.len()), section);
            }
        }
        Ok(())
    }

    /// Writes the JSON, the Markdown and the plots into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let write = |ending: &str, text: String| {
            let path = folder.join(format!("{name}{ending}"));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(".json", serde_json::to_string_pretty(self)? + "\n")?;
        write(".md", table::markdown(self))?;
        for (plot, svg) in plot::all(self) {
            write(&format!("-{plot}.svg"), svg)?;
        }
        Ok(())
    }
}

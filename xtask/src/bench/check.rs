//! `cargo xtask bench --check`: instructions of the agent's hot paths under callgrind, held against those that are committed.
//! Unlike seconds they repeat, on a machine that does other things too.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{packages, workspace::root};

/// More than so many percent more is a failure.
const TOLERANCE: u64 = 5;

/// How often each path is counted.
const COUNTS: usize = 3;

/// The paths of agent/benches/hot_paths.rs, and how often each is gone: enough that what differs from run to run (hashes
/// with random keys, which thread comes first) is small beside the rest.
const PATHS: [(&str, u64); 9] = [
    ("hello", 1000),
    ("call", 200),
    ("read-small", 200),
    ("read-large", 20),
    ("write-large", 10),
    ("list", 5),
    ("pack", 3),
    ("unpack", 3),
    ("spawn", 20),
];

/// glibc chooses its copying by the processor, which would make each kind of processor count differently.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-BMI2,-Prefer_ERMS";

/// bench/instructions.json.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Committed {
    /// The compiler that the counts are of.
    rustc: String,
    /// Instructions for going each path once.
    paths: BTreeMap<String, u64>,
}

/// Counts with that build, and fails where a path got worse; with `bless`, commits the counts instead.
pub(crate) fn check(program: &Path, bless: bool) -> anyhow::Result<()> {
    packages::install(&[("/usr/bin/valgrind", "valgrind")])?;
    let file = root().join("bench/instructions.json");
    let mut counted = Committed {
        rustc: compiler()?,
        paths: BTreeMap::new(),
    };
    for (path, times) in PATHS {
        let each = each(program, path, times)?;
        counted.paths.insert(path.into(), each);
    }
    if bless {
        fs::write(&file, serde_json::to_string_pretty(&counted)? + "\n")?;
    }
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let committed: Committed = serde_json::from_slice(&text)?;
    compare(&committed, &counted)
}

/// Instructions for going the path once: the middle of several counts, since what threads do differs by some percent.
fn each(program: &Path, path: &str, times: u64) -> anyhow::Result<u64> {
    let mut counts = [0; COUNTS];
    for each in &mut counts {
        let once = count(program, path, 0)?;
        let more = count(program, path, times)?;
        *each = more.saturating_sub(once) / times;
        ensure!(*each > 0, "{path} took no instructions");
    }
    counts.sort_unstable();
    Ok(counts[COUNTS / 2])
}

fn compare(committed: &Committed, counted: &Committed) -> anyhow::Result<()> {
    let mut worse = Vec::new();
    for (path, now) in &counted.paths {
        let before = committed.paths.get(path).with_context(|| {
            format!("{path} has no committed count: run `cargo xtask bench --check --bless`")
        })?;
        let change = 100.0 * (*now as f64 / *before as f64 - 1.0);
        println!("{path:<12} {now:>12} instructions, {change:+.1} %");
        if now * 100 > before * (100 + TOLERANCE) {
            worse.push(path.as_str());
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    let other = if committed.rustc == counted.rustc {
        String::new()
    } else {
        format!(
            " (the committed counts are of rustc {}, this is {})",
            committed.rustc, counted.rustc
        )
    };
    bail!(
        "more than {TOLERANCE} % worse{other}: {}. Find out why, or commit the new counts with `cargo xtask bench --check \
         --bless` and say why",
        worse.join(", ")
    )
}

/// Builds the paths by this cargo, as what runs on a host is built, and says where they are.
pub(crate) fn build(mut cargo: Command) -> anyhow::Result<PathBuf> {
    let output = cargo
        .args(["build", "--quiet", "--profile", "host"])
        .args(["--package", "guestline-agent", "--bench", "hot_paths"])
        .args(["--message-format", "json"])
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the paths cannot be built: {said}");
    let text = String::from_utf8(output.stdout)?;
    let built = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "hot_paths")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    built.context("cargo built no hot_paths")
}

/// All instructions of one run.
fn count(program: &Path, path: &str, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{path} failed: {said}");
    // A child that has not come to its exec writes such a line too: the last is the program's own.
    let line = said.lines().rev().find(|line| line.contains("Collected :"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    let number = number.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(number.parse()?)
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').nth(1).unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(call: u64) -> Committed {
        Committed {
            rustc: "1".into(),
            paths: BTreeMap::from([("call".into(), call)]),
        }
    }

    #[test]
    fn five_percent_more_is_the_most() {
        for (now, passes) in [(500, true), (1000, true), (1050, true), (1051, false)] {
            assert_eq!(
                compare(&counts(1000), &counts(now)).is_ok(),
                passes,
                "{now}"
            );
        }
        assert!(compare(&Committed::default(), &counts(1)).is_err());
    }
}

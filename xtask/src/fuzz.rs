//! `cargo xtask fuzz`: each target of fuzz/ for a time. Built with the stable compiler: libFuzzer's instrumentation is LLVM's, and
//! the parsers have no unsafe code in which a sanitizer would find more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::workspace::{check, root, target};

/// The target is named so that build scripts and procedural macros get no instrumentation.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// As cargo-fuzz has them, without what only a nightly compiler takes.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The longest input: several times the longest line, header or message that decides something.
const MAX_INPUT: &str = "-max_len=16384";

/// Of the whole process, with libFuzzer's own tables. A target bounds what an input may take itself.
const MAX_MEMORY: &str = "-rss_limit_mb=1024";

/// Seconds for one input, on a loaded machine under instrumentation.
const MAX_TIME: &str = "-timeout=20";

/// All targets of that build, or one, for so many seconds each. `printed` keeps how each went, as the table of promises
/// reads it.
pub(crate) fn fuzz(
    programs: &Path,
    seconds: u32,
    only: Option<&str>,
    printed: Option<&Path>,
) -> anyhow::Result<()> {
    let targets = targets()?;
    let chosen: Vec<&str> = targets
        .iter()
        .map(String::as_str)
        .filter(|target| only.is_none_or(|only| only == *target))
        .collect();
    ensure!(!chosen.is_empty(), "the targets are {}", targets.join(", "));
    let mut failed = Vec::new();
    let mut lines = String::new();
    for target in chosen {
        let line = match run(programs, target, seconds) {
            Ok(()) => format!("test fuzz::{target} ... ok"),
            Err(error) => {
                failed.push(target);
                format!("test fuzz::{target} ... FAILED\n    {error:#}")
            }
        };
        println!("{line}");
        lines.push_str(&line);
        lines.push('\n');
    }
    if let Some(path) = printed {
        fs::write(path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(failed.is_empty(), "found something: {}", failed.join(", "));
    Ok(())
}

/// The names of all targets, by their files.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/targets");
    let cannot = || format!("cannot read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let stem = path.file_stem().context("a target without a name")?;
        names.push(stem.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Builds all targets by this cargo, and gives the folder with them.
pub(crate) fn build(mut cargo: Command) -> anyhow::Result<PathBuf> {
    let folder = target().join("fuzz");
    let manifest = root().join("fuzz/Cargo.toml");
    cargo.args(["build", "--quiet", "--release", "--target", TRIPLE]);
    cargo.arg("--manifest-path").arg(manifest);
    cargo.arg("--target-dir").arg(&folder);
    cargo.env("RUSTFLAGS", FLAGS);
    check(&mut cargo).context("libFuzzer wants a C++ compiler: apt-get install g++")?;
    Ok(folder.join(TRIPLE).join("release"))
}

/// From the seeds, and what earlier runs found worth keeping. An input that fails is kept too, and named.
fn run(programs: &Path, name: &str, seconds: u32) -> anyhow::Result<()> {
    let folder = target().join("fuzz");
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let output = Command::new(programs.join(name))
        .args([MAX_INPUT, MAX_MEMORY, MAX_TIME, "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .arg(root().join("fuzz/seeds").join(name))
        .output()
        .with_context(|| format!("cannot run the target {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let log = artifacts.join("log");
        fs::write(&log, said.as_bytes())?;
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        anyhow::bail!(
            "{name}: {}; all of it is in {}\n{}",
            output.status,
            log.display(),
            tail.join("\n")
        );
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("Done "));
    println!(
        "fuzz {name}: {}",
        runs.context("libFuzzer did not say how many runs it made")?
    );
    Ok(())
}

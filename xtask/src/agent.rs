//! Builds the static agent and checks that it is static.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, bail, ensure};

use crate::workspace;

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";

/// A position-independent program has some ten thousand addresses to adjust at its start; packed, they take 200 KiB less.
/// glibc has known how since 2.36, the musl that Rust brings has not.
const PACKED: &str = "link-arg=-Wl,-z,pack-relative-relocs";

/// Functions that came to the same code become one: Rust promises nothing of their addresses. Of Rust's own linker (lld),
/// which it takes by itself for this target.
const FOLDED: &str = "link-arg=-Wl,--icf=all";

/// The largest that the agent may be: 3.75 MiB.
const MAX_SIZE: u64 = 3840 << 10;

/// What a build with switches looks for beside itself; see the agent's `switches`.
const SWITCHES: &[u8] = b".switches";

/// Builds for musl where that target is installed, else for glibc, linked statically, and returns the binary's path.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let path = build_with(&[])?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let size = bytes.len() as u64;
    ensure!(
        size <= MAX_SIZE,
        "{} has {size} bytes, more than {MAX_SIZE}",
        path.display()
    );
    ensure!(
        !contains(&bytes, SWITCHES),
        "{} has switches for tests",
        path.display()
    );
    Ok(path)
}

/// The same with switches, by which a test takes a defence out or kills the agent at a step. Kept beside what is shipped.
pub(crate) fn build_switched() -> anyhow::Result<PathBuf> {
    let built = build_with(&["--features", "test-switches"])?;
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    ensure!(
        contains(&bytes, SWITCHES),
        "{} has no switches",
        built.display()
    );
    let kept = workspace::target().join("guestline/guestline-agent-switched");
    fs::write(&kept, bytes).with_context(|| format!("cannot write {}", kept.display()))?;
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o755))?;
    Ok(kept)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn build_with(features: &[&str]) -> anyhow::Result<PathBuf> {
    let target = if has_target(MUSL) { MUSL } else { GNU };
    let mut cargo = workspace::cargo();
    cargo.args([
        "rustc",
        "--quiet",
        "--release",
        "--package",
        "guestline-agent",
        "--bin",
        "guestline-agent",
        "--target",
        target,
    ]);
    cargo.args(features);
    // Procedural macros cannot be linked statically, which is why the target is named.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if target == GNU {
        cargo.args(["--", "-C", PACKED, "-C", FOLDED]);
    }
    workspace::check(&mut cargo)?;
    let path = workspace::target()
        .join(target)
        .join("release/guestline-agent");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(is_static(&bytes)?, "{} is not static", path.display());
    // An older glibc would leave the addresses as they are, and the program would not get to its first line.
    let starts = std::process::Command::new(&path).arg("--version").output();
    ensure!(
        starts.is_ok_and(|output| output.status.success()),
        "{} does not start",
        path.display()
    );
    eprintln!(
        "guestline: the agent is static, {:.2} MiB ({target})",
        bytes.len() as f64 / (1 << 20) as f64
    );
    Ok(path)
}

fn has_target(target: &str) -> bool {
    let libraries = std::process::Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output();
    libraries
        .is_ok_and(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Whether an ELF file names no interpreter (elf(5), PT_INTERP): nothing is then loaded beside it.
fn is_static(elf: &[u8]) -> anyhow::Result<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> anyhow::Result<u64> {
        let bytes = elf
            .get(at..at + size)
            .context("the file ends within its headers")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    // e_phoff, e_phentsize and e_phnum of Elf64_Ehdr.
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for entry in 0..count {
        if number((table + entry * size) as usize, 4)? == u64::from(PT_INTERP) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_wherever_it_is() {
        assert!(contains(b"of a.switches", SWITCHES));
        assert!(!contains(b"of a.switch", SWITCHES));
    }

    #[test]
    fn this_test_itself_is_not_static() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
    }
}

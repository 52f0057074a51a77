//! Builds the static agent and checks that it is static.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail, ensure};

use crate::workspace;

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";

/// The largest that the agent may be.
const MAX_SIZE: u64 = 4 << 20;

/// Builds for musl where that target is installed, else for glibc, linked statically, and returns the binary's path.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let target = if has_target(MUSL) { MUSL } else { GNU };
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "guestline-agent",
        "--target",
        target,
    ]);
    // Procedural macros cannot be linked statically, which is why the target is named.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    workspace::check(&mut cargo)?;
    let path = workspace::target()
        .join(target)
        .join("release/guestline-agent");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(is_static(&bytes)?, "{} is not static", path.display());
    let size = bytes.len() as u64;
    ensure!(
        size <= MAX_SIZE,
        "{} has {size} bytes, more than {MAX_SIZE}",
        path.display()
    );
    eprintln!(
        "guestline: the agent is static, {:.2} MiB ({target})",
        size as f64 / (1 << 20) as f64
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
    fn this_test_itself_is_not_static() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
    }
}

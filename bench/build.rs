//! Builds guest/raw.rs, the baseline that runs in the guest. Static, so that it costs what it costs and nothing more.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=guest/raw.rs");
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let status = Command::new(rustc)
        .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
        .args(["-C", "opt-level=3", "-C", "strip=symbols", "-o"])
        .arg(Path::new(&out).join("raw"))
        .arg("guest/raw.rs")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "guest/raw.rs cannot be built statically (glibc's libc.a is part of libc6-dev)"
    );
}

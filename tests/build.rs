//! Builds the programs of guest/, which suites run in the guest. Static, so that they run in every image.

use std::{env, ffi::OsStr, path::Path, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    for program in ["peer", "neighbour", "kernel"] {
        println!("cargo::rerun-if-changed=guest/{program}.rs");
        build(&rustc, program, &Path::new(&out).join(program));
    }
}

fn build(rustc: &OsStr, program: &str, to: &Path) {
    let status = Command::new(rustc)
        .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
        .args(["-C", "opt-level=1", "-C", "strip=symbols", "-o"])
        .arg(to)
        .arg(format!("guest/{program}.rs"))
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "guest/{program}.rs cannot be built statically (glibc's libc.a is part of libc6-dev)"
    );
}

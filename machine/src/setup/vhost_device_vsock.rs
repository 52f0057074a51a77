//! vhost-device-vsock, which gives QEMU a vsock where the kernel has none: built once from its crate, with two changes.
//!
//! 0.3.0, the newest, answers nobody any more once a program of the host has left in the wrong moment:
//! - between its `CONNECT` and the guest's answer, as at a time-out or a SIGKILL: the one thread panics;
//! - before its `CONNECT` is read: the thread turns round its closed socket for ever.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    Setup,
    programs::{run, run_in},
    say,
};
use crate::MachineError;

const NAME: &str = "vhost-device-vsock";
const VERSION: &str = "0.3.0";

/// Raised with [`EDITS`], so that what was built without them is not used.
const REVISION: u32 = 1;

/// A package that wants the crate, since cargo gives the source of a dependency alone.
const WANTING: &str = r#"[package]
name = "source"
version = "0.0.0"
edition = "2021"

[lib]
path = "lib.rs"

[dependencies]
vhost-device-vsock = "=VERSION"

[workspace]
"#;

/// A file, what it has, and what it gets in its place.
const EDITS: [(&str, &str, &str); 3] = [
    (
        "src/vsock_conn.rs",
        "self.stream.write_all(response.as_bytes()).unwrap();",
        "if self.stream.write_all(response.as_bytes()).is_err() {
                        self.rx_queue.enqueue(RxOps::Reset);
                        return Ok(());
                    }",
    ),
    (
        "src/vhu_vsock_thread.rs",
        "// Has to be EPOLLIN as it was not connected previously
                    return;",
        "// Has to be EPOLLIN as it was not connected previously. Dropped, it is closed.
                    self.thread_backend.stream_map.remove(&fd);
                    return;",
    ),
    // It is built below a folder of ours, and is none of our workspace.
    ("Cargo.toml", "[package]", "[workspace]\n\n[package]"),
];

impl Setup {
    /// vhost-device-vsock, built once into the cache.
    pub(crate) fn vhost_device_vsock(&self) -> Result<PathBuf, MachineError> {
        let _held = self.hold()?;
        let root = self
            .folder("tools")?
            .join(format!("{NAME}-{VERSION}-{REVISION}"));
        let program = root.join("bin").join(NAME);
        if !program.exists() {
            say("building vhost-device-vsock from its crate, once (about a minute)");
            let source = root.join("source");
            unpack(&source)?;
            let crate_folder = source.join("vendor").join(NAME);
            for (file, from, to) in EDITS {
                edit(&crate_folder.join(file), from, to)?;
            }
            let (path, into) = (crate_folder.to_string_lossy(), root.to_string_lossy());
            let target = source.join("target");
            let arguments = [
                "install",
                "--quiet",
                "--locked",
                "--path",
                &path,
                "--root",
                &into,
                "--target-dir",
                &target.to_string_lossy(),
            ];
            run(&cargo(), &arguments)?;
            fs::remove_dir_all(&source).map_err(MachineError::file("remove", &source))?;
        }
        Ok(program)
    }
}

fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// The crate as the registry has it, below `vendor`.
fn unpack(folder: &Path) -> Result<(), MachineError> {
    // Of one that was cut off.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(MachineError::file("make", folder))?;
    let package = WANTING.replace("VERSION", VERSION);
    for (name, text) in [("Cargo.toml", package.as_str()), ("lib.rs", "")] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(MachineError::file("write", &path))?;
    }
    run_in(folder, &cargo(), &["vendor", "--quiet", "vendor"])
}

fn edit(path: &Path, from: &str, to: &str) -> Result<(), MachineError> {
    let text = fs::read_to_string(path).map_err(MachineError::file("read", path))?;
    if text.matches(from).count() != 1 {
        return Err(MachineError::Incomplete {
            package: format!("{NAME} {VERSION}"),
            what: format!("{from:?} in {}", path.display()),
        });
    }
    fs::write(path, text.replace(from, to)).map_err(MachineError::file("write", path))
}

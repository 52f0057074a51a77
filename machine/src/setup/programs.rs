//! Programs of the host: run them, and install those that are missing.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Setup, say};
use crate::MachineError;

/// How much of a failed program's words is shown.
const WORDS: usize = 2000;

/// Between two looks whether a program with a limit has ended.
const END_POLL: Duration = Duration::from_millis(5);

impl Setup {
    /// QEMU for x86-64.
    pub(crate) fn qemu(&self) -> Result<PathBuf, MachineError> {
        let _held = self.hold()?;
        let name = "qemu-system-x86_64";
        if let Some(path) = find(name) {
            return Ok(path);
        }
        // A newer qemu-utils, as from backports, stands in the way of the stable QEMU.
        install(name, &["qemu-system-x86"])
            .or_else(|_| {
                install(
                    name,
                    &["--allow-downgrades", "qemu-system-x86", "qemu-utils/stable"],
                )
            })
            .or_else(|_| {
                install(
                    name,
                    &[
                        "--allow-downgrades",
                        "qemu-system-x86",
                        "qemu-utils/bookworm",
                    ],
                )
            })
    }

    /// mmdebstrap, which makes a Debian file system out of packages.
    pub(crate) fn mmdebstrap(&self) -> Result<PathBuf, MachineError> {
        find("mmdebstrap").map_or_else(|| install("mmdebstrap", &["mmdebstrap"]), Ok)
    }

    /// mke2fs, which makes an ext4 image of a folder.
    pub(crate) fn mke2fs(&self) -> Result<PathBuf, MachineError> {
        find("mke2fs").map_or_else(|| install("mke2fs", &["e2fsprogs"]), Ok)
    }

    /// resize2fs, which grows an ext4 file system.
    pub(crate) fn resize2fs(&self) -> Result<PathBuf, MachineError> {
        find("resize2fs").map_or_else(|| install("resize2fs", &["e2fsprogs"]), Ok)
    }
}

/// Where a program of that name is, in PATH or where root's programs are.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder: PathBuf| folder.join(name))
        .find(|path| path.is_file())
}

fn install(program: &str, arguments: &[&str]) -> Result<PathBuf, MachineError> {
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(arguments);
    let missing = || MachineError::Missing {
        program: program.into(),
        install: format!("apt-get {}", words.join(" ")),
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(missing());
    }
    say(&format!(
        "installing Debian's package for {program}: apt-get {}",
        words.join(" ")
    ));
    if run("apt-get", &words).is_err() {
        run("apt-get", &["update"])?;
        run("apt-get", &words)?;
    }
    find(program).ok_or_else(missing)
}

/// Runs a program to its end; what it said is part of the error.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), MachineError> {
    finish(program, arguments, Command::new(program), None).map(drop)
}

/// The same, of one that is ended when its time is over. It should have little to say.
pub(crate) fn run_until(
    end: Option<Instant>,
    program: &str,
    arguments: &[&str],
) -> Result<(), MachineError> {
    finish(program, arguments, Command::new(program), end).map(drop)
}

/// The same, in a folder.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), MachineError> {
    let mut command = Command::new(program);
    command.current_dir(folder);
    finish(program, arguments, command, None).map(drop)
}

/// What a program prints.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, MachineError> {
    let output = finish(program, arguments, Command::new(program), None)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn finish(
    program: &str,
    arguments: &[&str],
    mut command: Command,
    end: Option<Instant>,
) -> Result<Output, MachineError> {
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("DEBIAN_FRONTEND", "noninteractive");
    // Programs that cargo runs must not take its settings for their own builds.
    command
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    let output = match end {
        None => command.output(),
        Some(end) => output_until(end, command),
    };
    let output = output.map_err(|_| MachineError::Missing {
        program: program.into(),
        install: format!(
            "apt-get install {}",
            Path::new(program)
                .file_name()
                .and_then(OsStr::to_str)
                .unwrap_or(program)
        ),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    if end.is_some_and(|end| Instant::now() >= end) {
        return Err(MachineError::Late {
            doing: format!("run {program}"),
        });
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim();
    let start = words.len().saturating_sub(WORDS);
    Err(MachineError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        status: output.status.to_string(),
        words: words[words.ceil_char_boundary(start)..].into(),
    })
}

/// Killed when its time is over.
fn output_until(end: Instant, mut command: Command) -> io::Result<Output> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            break;
        }
        thread::sleep(END_POLL);
    }
    child.wait_with_output()
}

//! What this guest is: kernel, distribution, boot, load, memory, disks. Read from /proc and /etc; what a guest does not
//! have is empty or zero.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::{statvfs::fstatvfs, utsname::uname},
    unistd::getpid,
};

use super::{
    mounts::{self, Mounted},
    services,
};
use crate::sys::{child, socket_diag::UnixListeners};

/// A snapshot of the guest.
#[derive(Debug, Default)]
pub(crate) struct Info {
    pub(crate) hostname: String,
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) operating_system: String,
    pub(crate) boot_id: String,
    pub(crate) uptime: Duration,
    /// Over 1, 5 and 15 minutes.
    pub(crate) load: [f64; 3],
    pub(crate) cpus: u32,
    pub(crate) memory: Memory,
    pub(crate) disks: Vec<Disk>,
    pub(crate) capabilities: Vec<String>,
}

/// Bytes, from /proc/meminfo.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
}

/// A mounted block device. Sizes in bytes.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) mount_point: PathBuf,
    pub(crate) device: PathBuf,
    pub(crate) file_system: String,
    pub(crate) total: u64,
    pub(crate) available: u64,
}

/// Looks at everything once. May block on a mounted disk that hangs.
pub(crate) fn info() -> Info {
    let names = uname().ok();
    let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names
            .as_ref()
            .map(|names| part(names).to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let uptime = text("/proc/uptime")
        .split(' ')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0.0);
    Info {
        hostname: name(|names| names.nodename()),
        kernel: name(|names| names.release()),
        architecture: name(|names| names.machine()),
        operating_system: operating_system(&text("/etc/os-release")),
        boot_id: text("/proc/sys/kernel/random/boot_id").trim().into(),
        uptime: Duration::try_from_secs_f64(uptime).unwrap_or_default(),
        load: load(&text("/proc/loadavg")),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| count.get().try_into().unwrap_or(u32::MAX)),
        memory: memory(&text("/proc/meminfo")),
        disks: disks(),
        capabilities: capabilities(),
    }
}

pub(super) fn text(path: &str) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// PRETTY_NAME of os-release(5).
fn operating_system(text: &str) -> String {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or_default();
    value.trim_matches(['"', '\'']).into()
}

pub(super) fn load(text: &str) -> [f64; 3] {
    let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or(0.0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0.0))
}

pub(super) fn memory(text: &str) -> Memory {
    let bytes = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .unwrap_or_default();
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .map_or(0, |kib| kib * 1024)
    };
    Memory {
        total: bytes("MemTotal"),
        free: bytes("MemFree"),
        available: bytes("MemAvailable"),
        swap_total: bytes("SwapTotal"),
        swap_free: bytes("SwapFree"),
    }
}

/// Each once, where it is first seen: bind mounts are no disks of their own.
pub(super) fn disks() -> Vec<Disk> {
    let disk = |mounted: Mounted| {
        let space = fstatvfs(&mounted.file).ok()?;
        let unit = space.fragment_size();
        Some(Disk {
            mount_point: mounted.point,
            device: mounted.source,
            file_system: mounted.kind,
            total: space.blocks() * unit,
            available: space.blocks_available() * unit,
        })
    };
    mounts::look_at_each(disk).unwrap_or_default()
}

/// What rpcs may depend on.
fn capabilities() -> Vec<String> {
    let has = |path: &str| Path::new(path).exists();
    let known = [
        ("cgroup2", has("/sys/fs/cgroup/cgroup.controllers")),
        ("pidfd", child::open_pidfd(getpid()).is_ok()),
        ("login_session", has(services::BOOTED)),
        ("psi", has("/proc/pressure")),
        ("systemd", has(services::BOOTED)),
        ("unix_diag", matches!(UnixListeners::ask(), Ok(Some(_)))),
    ];
    let there = known.iter().filter(|(_, there)| *there);
    there.map(|(name, _)| (*name).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(load("0.50 0.25 0.10 1/100 4242\n"), [0.5, 0.25, 0.1]);
        let memory =
            memory("MemTotal:       1024 kB\nMemFree:         512 kB\nMemAvailable:    768 kB\n");
        assert_eq!(
            (
                memory.total,
                memory.free,
                memory.available,
                memory.swap_total
            ),
            (1 << 20, 512 << 10, 768 << 10, 0)
        );
        assert_eq!(
            operating_system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
    }

    #[test]
    fn this_machine_has_a_kernel_a_boot_and_memory() {
        let info = info();
        assert!(
            !info.kernel.is_empty()
                && info.boot_id.len() == 36
                && info.memory.total > 0
                && info.cpus > 0
        );
    }
}

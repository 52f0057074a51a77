//! The files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst) below which each program has a group of its own.
//! Root makes and removes the groups; anybody may read what they tell.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};
use rustix::buffer::spare_capacity;
use serde::{Deserialize, Serialize};

use super::errno_of;

/// Where guests mount cgroup v2 (file-hierarchy(7)).
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";

/// The parent of all groups.
const PARENT: &str = "/sys/fs/cgroup/guestline";

/// The mount's option for cheap changes.
const FAVOUR: &str = "favordynmods";

/// More than any of a group's files of keys and values has.
const MAX_SHORT: usize = 4096;

/// What a group may use; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) pids: Option<u32>,
    /// Thousandths of a core.
    pub(crate) cpu_millis: Option<u32>,
}

impl Limits {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A group, by its name below the parent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group(PathBuf);

/// What its members, also former ones, have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupUsage {
    pub(crate) user_time: Duration,
    pub(crate) system_time: Duration,
    /// Bytes at the most, with their page cache; 0 where the kernel does not tell (before Linux 5.19).
    pub(crate) memory_peak: u64,
    /// How many of them the kernel's OOM killer ended.
    pub(crate) oom_kills: u64,
}

/// Whether the guest has cgroup v2, and nothing older, at its usual place.
pub(crate) fn is_available() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// Asks the kernel to make changes of membership cheap (`favordynmods`, Linux 6.0): without that each waits until all
/// processors have passed a quiet state, some 10 ms, before every program's first instruction. In exchange a fork or an
/// exit takes a lock that all share. The mount keeps its other options.
pub(crate) fn favour_changes() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let Some((flags, options)) = mounts.lines().find_map(options_of) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    if options.split(',').any(|option| option == FAVOUR) {
        return Ok(());
    }
    let options = if options.is_empty() {
        FAVOUR.into()
    } else {
        format!("{options},{FAVOUR}")
    };
    let flags = flags | MsFlags::MS_REMOUNT;
    let none = None::<&str>;
    mount(none, MOUNT, none, flags, Some(options.as_str())).map_err(io::Error::from)
}

/// Flags and options of a line of mountinfo (proc(5)), if it is that of cgroup v2.
fn options_of(line: &str) -> Option<(MsFlags, &str)> {
    let (own, kernels) = line.split_once(" - ")?;
    let fields: Vec<&str> = own.split(' ').collect();
    let (place, own) = (fields.get(4)?, fields.get(5)?);
    let mut kernels = kernels.split(' ');
    if *place != MOUNT || kernels.next() != Some("cgroup2") {
        return None;
    }
    let options = kernels.nth(1)?;
    let options = options.split_once(',').map_or("", |(_, options)| options);
    let flags = own.split(',').map(|word| match word {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    });
    Some((flags.collect(), options))
}

impl Group {
    pub(crate) fn parent() -> Self {
        Self(PARENT.into())
    }

    /// `None` for a name that would lead elsewhere.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (!name.is_empty() && name.len() <= 64 && name.bytes().all(plain))
            .then(|| Self(Path::new(PARENT).join(name)))
    }

    /// A folder that stands for one.
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// The one that a process is in, wherever that is.
    pub(crate) fn of_process(pid: i32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        // Of a group outside of this cgroup namespace (cgroup_namespaces(7)).
        let is_outside = path.split('/').any(|part| part == "..");
        (is_available() && !is_outside).then(|| Self(Path::new(MOUNT).join(path)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }

    /// The living processes in it.
    pub(crate) fn members(&self) -> io::Result<Vec<i32>> {
        let text = fs::read_to_string(self.0.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Whether anything lives in it, or may: a file that cannot be read says no such thing. A zombie does not live.
    pub(crate) fn is_populated(&self) -> bool {
        match self.tell("cgroup.events") {
            Ok(events) => value(&events, "populated") != Some(0),
            Err(error) => !is_gone(&error),
        }
    }

    /// One of its short files, which the kernel gives in one piece.
    fn tell(&self, file: &str) -> io::Result<String> {
        let mut text = Vec::with_capacity(MAX_SHORT);
        let file = File::open(self.0.join(file))?;
        rustix::io::read(file, spare_capacity(&mut text))?;
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn usage(&self) -> GroupUsage {
        let read = |file| self.tell(file).unwrap_or_default();
        let cpu = read("cpu.stat");
        let time = |key| Duration::from_micros(value(&cpu, key).unwrap_or(0));
        GroupUsage {
            user_time: time("user_usec"),
            system_time: time("system_usec"),
            memory_peak: read("memory.peak").trim().parse().unwrap_or(0),
            oom_kills: value(&read("memory.events"), "oom_kill").unwrap_or(0),
        }
    }
}

/// The group is no longer there, said when its file is opened, or when it is read.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    [Errno::ENOENT, Errno::ENODEV].contains(&errno_of(error))
}

/// Of a file of lines "key value".
fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_parent() {
        for name in ["", ".", "..", "a/b", "../x", "a.b", "\0"] {
            assert_eq!(Group::named(name), None, "{name:?}");
        }
        let group = Group::named("u1000-p5").unwrap();
        assert_eq!(group.path(), Path::new("/sys/fs/cgroup/guestline/u1000-p5"));
    }

    #[test]
    fn a_mounts_options_stay_when_one_is_added() {
        let line = "29 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 \
                    rw,nsdelegate,memory_recursiveprot";
        let (flags, options) = options_of(line).unwrap();
        assert_eq!(options, "nsdelegate,memory_recursiveprot");
        let kept = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        assert_eq!(flags, kept | MsFlags::MS_RELATIME);
        let bare = line.replace(",nsdelegate,memory_recursiveprot", "");
        assert_eq!(options_of(&bare).unwrap().1, "");
        let other = line.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified");
        assert!(options_of(&other).is_none());
    }

    #[test]
    fn only_a_group_that_is_gone_is_taken_for_empty_unread() {
        let group = Group::named("u1000-p5-gone").unwrap();
        assert!(!group.is_populated());
        for errno in [Errno::EMFILE, Errno::EACCES, Errno::EIO] {
            assert!(!is_gone(&errno.into()), "{errno}");
        }
    }

    #[test]
    fn keys_have_values() {
        let text = "usage_usec 30\nuser_usec 10\nsystem_usec 20\n";
        assert_eq!(value(text, "user_usec"), Some(10));
        assert_eq!(value(text, "nr_periods"), None);
    }
}

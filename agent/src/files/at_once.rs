//! Answers that need no waiting: what the kernel has at hand of a local file system. A thread's wake-up and the way back cost
//! more than such an answer does, so that small calls try this first, on the worker's one thread.
//!
//! Nothing here may block, whatever a user mounts: the path is walked through the kernel's cache alone (`RESOLVE_CACHED` of
//! openat2(2), Linux 5.12), what it leads to is only held (`O_PATH`), its mount is asked for without asking a server
//! (`AT_STATX_DONT_SYNC`, `STATX_MNT_ID` of statx(2)), and only where that is a file system of the kernel's own, without
//! a server, more is asked. `None` says nothing: the call is to be made where it may wait.

use std::{
    collections::HashMap,
    fs::File,
    io::{IoSliceMut, Read, Seek},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::{ReadWriteFlags, preadv2},
};

use super::{
    metadata::{Kind, Metadata},
    read::Range,
};

/// The most that is read at once: it takes less time than a thread's wake-up.
const MAX_READ: u64 = 64 * 1024;

/// File systems that ask no server and no process of a user's (/proc/filesystems). Not overlay: its layers may be others.
const LOCAL: [&str; 15] = [
    "btrfs", "cgroup2", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "iso9660", "proc",
    "ramfs", "squashfs", "sysfs", "tmpfs", "xfs",
];

/// Of those, the ones that have all in memory. They know RWF_NOWAIT only of late (Linux 6.6), and need it not.
const IN_MEMORY: [&str; 3] = ["devtmpfs", "ramfs", "tmpfs"];

/// The mounts of this process, as far as they matter.
#[derive(Debug, Default)]
pub(crate) struct AtOnce(Mutex<Mounts>);

impl AtOnce {
    /// The attributes of a path; with `follow`, of what a symbolic link leads to.
    pub(crate) fn stat(&self, path: &Path, follow: bool) -> Option<Metadata> {
        let (_, metadata, _) = self.find(path, follow)?;
        // The text of a link may have to be read from the disk.
        (metadata.kind != Kind::Symlink).then_some(metadata)
    }

    /// All that is asked for of a small file, if it is in the page cache.
    pub(crate) fn read(&self, path: &Path, range: Range) -> Option<(Metadata, Bytes)> {
        let (held, metadata, in_memory) = self.find(path, true)?;
        let rest = metadata.size.saturating_sub(range.offset);
        let size = rest.min(range.length.unwrap_or(u64::MAX));
        // A size of 0 may be a false one, as in /proc.
        if metadata.kind != Kind::Regular || !(1..=MAX_READ).contains(&size) {
            return None;
        }
        // Not by the path, which may lead elsewhere by now.
        let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(itself, flags, Mode::empty()).ok()?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        let mut room = [IoSliceMut::new(&mut bytes)];
        let flags = if in_memory {
            ReadWriteFlags::empty()
        } else {
            ReadWriteFlags::NOWAIT
        };
        let read = preadv2(&file, &mut room, range.offset, flags).ok()?;
        (read == bytes.len()).then(|| (metadata, bytes.into()))
    }

    /// What a path leads to, and whether its file system is in memory.
    fn find(&self, path: &Path, follow: bool) -> Option<(OwnedFd, Metadata, bool)> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        let held = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
        let asked = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let found = statx(&held, c"", asked, wanted).ok()?;
        let mut mounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = found.stx_mask & wanted.bits() == wanted.bits();
        let in_memory = known.then(|| mounts.local(found.stx_mnt_id))??;
        Some((held, Metadata::from(found), in_memory))
    }
}

/// /proc/self/mountinfo (proc(5)), read again when it has changed.
#[derive(Debug, Default)]
struct Mounts {
    file: Option<File>,
    /// Whether it is in memory, for each that is local.
    local: HashMap<u64, bool>,
}

impl Mounts {
    fn local(&mut self, mount: u64) -> Option<bool> {
        if self.have_changed() && self.read().is_err() {
            self.file = None;
            self.local.clear();
        }
        self.local.get(&mount).copied()
    }

    /// The kernel tells by POLLERR and POLLPRI, once for each open file.
    fn have_changed(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        let changed = PollFlags::POLLPRI | PollFlags::POLLERR;
        poll(&mut polled, PollTimeout::ZERO).is_err()
            || polled[0].revents().is_none_or(|it| it.intersects(changed))
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::open("/proc/self/mountinfo")?,
        };
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        self.local = text.lines().filter_map(local_mount).collect();
        self.file = Some(file);
        Ok(())
    }
}

/// The mount's number, if what is mounted is local: the first field, and the one behind ` - `.
fn local_mount(line: &str) -> Option<(u64, bool)> {
    let (fields, kind) = line.split_once(" - ")?;
    let kind = kind.split(' ').next()?;
    let number = fields.split(' ').next()?.parse().ok()?;
    LOCAL
        .contains(&kind)
        .then(|| (number, IN_MEMORY.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::files::stat;

    const ALL: Range = Range {
        offset: 0,
        length: None,
    };

    /// On a file system of the kernel's own.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    /// The walk gives way to whoever renames or mounts at that moment, and where a link's time of access must be set: the
    /// call that may wait sets it, and the next try has it.
    fn in_time<T>(path: &Path, try_once: impl Fn(&Path) -> Option<T>) -> Option<T> {
        (0..1000).find_map(|_| {
            let _ = stat(path, true);
            try_once(path)
        })
    }

    #[test]
    fn what_is_at_hand_is_what_a_call_that_may_wait_says() {
        let (folder, at_once) = (folder(), AtOnce::default());
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        for name in ["file", "link", "."] {
            let path = folder.path().join(name);
            let found = in_time(&path, |path| at_once.stat(path, true));
            assert_eq!(found, stat(&path, true).ok(), "{name}");
        }
        // Left to the other one: a link's text, and errors.
        assert_eq!(at_once.stat(&folder.path().join("link"), false), None);
        assert_eq!(at_once.stat(&folder.path().join("missing"), true), None);
        let (metadata, bytes) = in_time(&path, |path| at_once.read(path, ALL)).unwrap();
        assert_eq!((metadata.size, &bytes[..]), (7, &b"content"[..]));
        let part = Range {
            offset: 3,
            length: Some(2),
        };
        assert_eq!(
            in_time(&path, |path| at_once.read(path, part)).unwrap().1,
            "te"
        );
    }

    #[test]
    fn what_is_large_or_no_file_or_may_lie_is_left_to_the_other_one() {
        let (folder, at_once) = (folder(), AtOnce::default());
        let large = folder.path().join("large");
        fs::write(&large, vec![0; MAX_READ as usize + 1]).unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let proc = Path::new("/proc/self/status");
        for path in [&large, &fifo, folder.path(), proc] {
            assert!(at_once.read(path, ALL).is_none(), "{path:?}");
        }
    }

    #[test]
    fn only_file_systems_without_a_server_are_local() {
        let line = |kind| format!("36 35 98:0 / /mnt rw,noatime shared:1 - {kind} /dev/x rw");
        assert_eq!(local_mount(&line("ext4")), Some((36, false)));
        assert_eq!(local_mount(&line("tmpfs")), Some((36, true)));
        for kind in [
            "fuse",
            "fuse.sshfs",
            "fuseblk",
            "nfs4",
            "9p",
            "virtiofs",
            "overlay",
        ] {
            assert_eq!(local_mount(&line(kind)), None, "{kind}");
        }
    }
}

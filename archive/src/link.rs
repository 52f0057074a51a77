//! A symbolic link's own attributes.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, fstat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, geteuid},
};
use rustix::fs::{Timespec, Timestamps};

/// A symbolic link, held open: what takes its name meanwhile gets no attributes of it.
#[derive(Debug)]
pub struct HeldLink<'a> {
    link: OwnedFd,
    directory: &'a OwnedFd,
    name: &'a OsStr,
}

impl<'a> HeldLink<'a> {
    /// `None` where the name is not that of a link which this process has just made: it has our user, and no other name.
    pub fn open(directory: &'a OwnedFd, name: &'a OsStr) -> Result<Option<Self>, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let link = openat(directory, name, flags, Mode::empty())?;
        let status = fstat(&link)?;
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        let is_ours = status.st_uid == geteuid().as_raw() && status.st_nlink == 1;
        Ok((kind == SFlag::S_IFLNK && is_ours).then_some(Self {
            link,
            directory,
            name,
        }))
    }

    /// Changes its owner and group.
    pub fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
        fchownat(&self.link, "", uid, gid, AtFlags::AT_EMPTY_PATH)
    }

    /// Changes its times. Before Linux 5.8 this is of whatever has the name.
    pub fn set_times(&self, accessed: TimeSpec, modified: TimeSpec) -> Result<(), Errno> {
        let of = |time: TimeSpec| Timespec {
            tv_sec: time.tv_sec(),
            tv_nsec: time.tv_nsec(),
        };
        let times = Timestamps {
            last_access: of(accessed),
            last_modification: of(modified),
        };
        let empty = rustix::fs::AtFlags::EMPTY_PATH;
        match rustix::fs::utimensat(self.link.as_fd(), "", &times, empty) {
            Err(rustix::io::Errno::INVAL) => {
                let flags = UtimensatFlags::NoFollowSymlink;
                utimensat(self.directory, self.name, &accessed, &modified, flags)
            }
            set => set.map_err(|errno| Errno::from_raw(errno.raw_os_error())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    #[test]
    fn what_takes_a_links_name_gets_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        let directory = OwnedFd::from(File::open(folder.path()).unwrap());
        symlink("nowhere", at("link")).unwrap();
        let link = HeldLink::open(&directory, OsStr::new("link"));
        let link = link.unwrap().expect("a link");
        fs::rename(at("link"), at("moved")).unwrap();
        fs::write(at("link"), "").unwrap();
        let before = fs::metadata(at("link")).unwrap();

        let time = TimeSpec::new(1000, 5);
        link.set_times(time, time).unwrap();
        // Root alone may give something away.
        let uid = geteuid();
        let other = if uid.is_root() { 4711 } else { uid.as_raw() };
        link.set_owner(Some(Uid::from_raw(other)), None).unwrap();

        let moved = fs::symlink_metadata(at("moved")).unwrap();
        let times = (moved.mtime(), moved.mtime_nsec(), moved.uid());
        assert_eq!(times, (1000, 5, other));
        let after = fs::metadata(at("link")).unwrap();
        assert_eq!(
            (after.mtime(), after.mtime_nsec(), after.uid()),
            (before.mtime(), before.mtime_nsec(), before.uid())
        );
        // Nor does what is no link, or is another's, or goes by another name too.
        symlink("nowhere", at("one")).unwrap();
        fs::hard_link(at("one"), at("two")).unwrap();
        let others = if uid.is_root() { "moved" } else { "two" };
        for name in ["link", "one", others] {
            let held = HeldLink::open(&directory, OsStr::new(name));
            assert!(held.unwrap().is_none(), "{name}");
        }
    }
}

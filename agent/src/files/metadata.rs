//! stat(2) of a path, a name in an open directory, or an open file.

use std::{ffi::OsString, os::fd::AsFd, path::Path};

use nix::{
    NixPath,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

use rustix::fs::{Statx, StatxTimestamp, makedev};

use super::error::{At, FileError, Operation};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
    /// A kind that Linux does not document.
    Unknown,
}

impl Kind {
    /// By st_mode.
    pub(crate) fn of(mode: u32) -> Self {
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::Regular,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Symlink,
            SFlag::S_IFIFO => Self::Fifo,
            SFlag::S_IFSOCK => Self::Socket,
            SFlag::S_IFCHR => Self::CharacterDevice,
            SFlag::S_IFBLK => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }
}

/// A moment, as the kernel counts: seconds since 1970, and nanoseconds after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// stat(2) of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) kind: Kind,
    /// st_mode & 07777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) hard_links: u64,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    pub(crate) special_device: u64,
    pub(crate) blocks: u64,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    /// The text of a symbolic link that was not followed, unless that is refused.
    pub(crate) link_target: Option<OsString>,
}

impl Metadata {
    /// Of an open file.
    pub(super) fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        Ok(fstat(file)?.into())
    }

    /// Of a name in an open directory; the text of a symbolic link comes with it.
    pub(super) fn of_name<P: NixPath + ?Sized>(
        directory: impl AsFd,
        name: &P,
        follow: bool,
    ) -> Result<Self, Errno> {
        let flags = if follow {
            AtFlags::empty()
        } else {
            AtFlags::AT_SYMLINK_NOFOLLOW
        };
        let directory = directory.as_fd();
        let mut metadata = Self::from(fstatat(directory, name, flags)?);
        if metadata.kind == Kind::Symlink {
            // Held, so that text and attributes are of one link, whatever takes its name meanwhile.
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let link = openat(directory, name, flags, Mode::empty())?;
            metadata = fstat(&link)?.into();
            if metadata.kind == Kind::Symlink {
                metadata.link_target = match readlinkat(&link, "") {
                    // As lstat(2), which tells of the links of another's process in /proc, whose text is not for all.
                    Err(Errno::EACCES) => None,
                    text => Some(text?),
                };
            }
        }
        Ok(metadata)
    }
}

impl From<Statx> for Metadata {
    /// Of all basic attributes.
    fn from(stat: Statx) -> Self {
        let time = |time: StatxTimestamp| Time {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec.into(),
        };
        Self {
            kind: Kind::of(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            hard_links: stat.stx_nlink.into(),
            inode: stat.stx_ino,
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            special_device: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            blocks: stat.stx_blocks,
            accessed: time(stat.stx_atime),
            modified: time(stat.stx_mtime),
            changed: time(stat.stx_ctime),
            link_target: None,
        }
    }
}

impl From<FileStat> for Metadata {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types of these fields differ between architectures"
    )]
    fn from(stat: FileStat) -> Self {
        let time = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds,
        };
        Self {
            kind: Kind::of(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            // Never negative, and what would not fit is none.
            size: u64::try_from(stat.st_size).unwrap_or(0),
            hard_links: stat.st_nlink as u64,
            inode: stat.st_ino,
            device: stat.st_dev,
            special_device: stat.st_rdev,
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            link_target: None,
        }
    }
}

/// The attributes of a path; with `follow`, of what a symbolic link leads to.
pub(crate) fn stat(path: &Path, follow: bool) -> Result<Metadata, FileError> {
    Metadata::of_name(AT_FDCWD, path, follow).at(Operation::Stat, path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_is_followed_or_told_with_its_text() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "abc").unwrap();
        let link = directory.path().join("link");
        symlink("file", &link).unwrap();
        let followed = stat(&link, true).unwrap();
        assert_eq!((followed.kind, followed.size), (Kind::Regular, 3));
        let link = stat(&link, false).unwrap();
        assert_eq!(link.kind, Kind::Symlink);
        assert_eq!(link.link_target.unwrap(), "file");
    }
}

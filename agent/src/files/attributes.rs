//! Changing owner, mode, size and times of a path.

use std::path::Path;

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, truncate},
};

use super::{
    error::{At, FileError, Operation},
    metadata::{Metadata, Time, stat},
};

/// What is to change; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mode: Option<u32>,
    pub(crate) size: Option<i64>,
    pub(crate) accessed: Option<Time>,
    pub(crate) modified: Option<Time>,
}

/// Changes owner, mode, size and times, in that order (a change of owner clears set-id bits, one of size sets the time
/// of modification), up to the first refusal. Without `follow` mode and size must be absent: links have neither.
pub(crate) fn set_attributes(
    path: &Path,
    changes: &Changes,
    follow: bool,
) -> Result<Metadata, FileError> {
    if changes.uid.is_some() || changes.gid.is_some() {
        let flags = if follow {
            AtFlags::empty()
        } else {
            AtFlags::AT_SYMLINK_NOFOLLOW
        };
        let uid = changes.uid.map(Uid::from_raw);
        let gid = changes.gid.map(Gid::from_raw);
        fchownat(AT_FDCWD, path, uid, gid, flags).at(Operation::ChangeOwner, path)?;
    }
    if let Some(mode) = changes.mode {
        let mode = Mode::from_bits_truncate(mode);
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)
            .at(Operation::ChangeMode, path)?;
    }
    if let Some(size) = changes.size {
        truncate(path, size).at(Operation::Truncate, path)?;
    }
    if changes.accessed.is_some() || changes.modified.is_some() {
        let flags = if follow {
            UtimensatFlags::FollowSymlink
        } else {
            UtimensatFlags::NoFollowSymlink
        };
        let accessed = time_spec(changes.accessed);
        let modified = time_spec(changes.modified);
        utimensat(AT_FDCWD, path, &accessed, &modified, flags).at(Operation::SetTimes, path)?;
    }
    stat(path, follow)
}

/// As utimensat(2) and futimens(3) take a time; absent is "as it was".
pub(super) fn time_spec(time: Option<Time>) -> TimeSpec {
    match time {
        Some(time) => TimeSpec::new(time.seconds, time.nanoseconds),
        None => TimeSpec::UTIME_OMIT,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_asked_for_changes_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "content").unwrap();
        let before = stat(&path, true).unwrap();
        let modified = Some(Time {
            seconds: -5,
            nanoseconds: 7,
        });
        let changes = Changes {
            mode: Some(0o711),
            size: Some(3),
            modified,
            ..Changes::default()
        };
        let after = set_attributes(&path, &changes, true).unwrap();
        assert_eq!((after.mode, after.size), (0o711, 3));
        assert_eq!(Some(after.modified), modified);
        assert_eq!(after.accessed, before.accessed);
        assert_eq!((after.uid, after.gid), (before.uid, before.gid));
        assert_eq!(fs::read_to_string(&path).unwrap(), "con");
    }

    #[test]
    fn a_link_itself_gets_times_where_it_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        symlink("nowhere", &link).unwrap();
        let accessed = Some(Time {
            seconds: 1,
            nanoseconds: 0,
        });
        let changes = Changes {
            accessed,
            ..Changes::default()
        };
        let after = set_attributes(&link, &changes, false).unwrap();
        assert_eq!(Some(after.accessed), accessed);
        assert!(set_attributes(&link, &changes, true).is_err());
    }
}

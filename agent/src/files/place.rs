//! Where a file is to appear: an open directory and a name in it. The directory stays the same one whatever happens to
//! the path meanwhile.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
};

use super::metadata::{Kind, Metadata};

/// How many links a path may lead through: the kernel's own limit (MAXSYMLINKS in include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Place {
    /// Opened with O_PATH: no read permission is needed.
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// What is there, not followed; nothing when there was nothing.
    pub(super) existing: Option<Metadata>,
}

impl Place {
    /// The place that a path names, not following a link there. A path that can only be a directory is EISDIR.
    pub(super) fn of(path: &Path) -> Result<Self, Errno> {
        Self::below(AT_FDCWD, path)
    }

    /// The place to which a path leads when links are followed, also one that does not exist yet.
    pub(super) fn through_links(path: &Path) -> Result<Self, Errno> {
        let mut place = Self::of(path)?;
        let mut led_somewhere = false;
        for _ in 0..=MAX_LINKS {
            let Some(text) = place.link_target() else {
                // The links of /proc/<pid>/fd lead to files that their text does not name.
                return match &place.existing {
                    Some(link) if link.kind == Kind::Symlink => Err(Errno::EACCES),
                    None if led_somewhere => Err(Errno::ENOENT),
                    _ => Ok(place),
                };
            };
            // The kernel goes first, and its rules hold: fs.protected_symlinks refuses other people's links in /tmp.
            match Metadata::of_name(&place.directory, place.name.as_os_str(), true) {
                Ok(end) => {
                    led_somewhere = true;
                    if !matches!(end.kind, Kind::Regular | Kind::Directory) {
                        place.existing = Some(end);
                        return Ok(place);
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            place = Self::below(&place.directory, Path::new(&text))?;
        }
        Err(Errno::ELOOP)
    }

    fn below(base: impl AsFd, path: &Path) -> Result<Self, Errno> {
        let (parent, name) = split(path);
        if name.is_empty() || name == "." || name == ".." {
            // It exists and is a directory, or the errno says what else is wrong.
            Metadata::of_name(base, path, true)?;
            return Err(Errno::EISDIR);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(base, parent, flags, Mode::empty())?;
        let existing = match Metadata::of_name(&directory, name, false) {
            Ok(metadata) => Some(metadata),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Self {
            directory,
            name: name.into(),
            existing,
        })
    }

    fn link_target(&self) -> Option<OsString> {
        self.existing.as_ref()?.link_target.clone()
    }

    /// fsync(2) of the directory, so that the name is on the disk too.
    pub(super) fn sync_directory(&self) -> Result<(), Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = File::from(openat(&self.directory, ".", flags, Mode::empty())?);
        nix::unistd::fsync(&directory)
    }
}

/// Parent and last name, byte for byte: unlike `Path::file_name`, `a/` and `a/.` have no name.
pub(super) fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let of = |bytes| Path::new(OsStr::from_bytes(bytes));
    match bytes.iter().rposition(|&byte| byte == b'/') {
        None => (Path::new("."), path.as_os_str()),
        Some(0) => (Path::new("/"), of(&bytes[1..]).as_os_str()),
        Some(slash) => (of(&bytes[..slash]), of(&bytes[slash + 1..]).as_os_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_a_path_with_a_last_name_has_one() {
        let of = |path| {
            let (parent, name) = split(Path::new(path));
            (parent.to_str().unwrap(), name.to_str().unwrap())
        };
        assert_eq!(of("a"), (".", "a"));
        assert_eq!(of("/a"), ("/", "a"));
        assert_eq!(of("a/b/"), ("a/b", ""));
        assert_eq!(of("a/b/."), ("a/b", "."));
    }

    #[test]
    fn a_circle_of_links_is_a_loop_and_a_chain_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        symlink("two", at("one")).unwrap();
        symlink("one", at("two")).unwrap();
        assert_eq!(Place::through_links(&at("one")).unwrap_err(), Errno::ELOOP);
        fs::create_dir(at("sub")).unwrap();
        symlink("sub/second", at("first")).unwrap();
        symlink("../third", at("sub/second")).unwrap();
        let place = Place::through_links(&at("first")).unwrap();
        assert_eq!(place.name, "third");
        assert!(place.existing.is_none());
    }

    #[test]
    fn a_link_whose_text_is_not_its_target_makes_no_file() {
        let file = tempfile::tempfile().unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let errno = Place::through_links(Path::new(&link)).unwrap_err();
        assert_eq!(errno, Errno::ENOENT);
    }
}

//! Copying files and trees inside the guest. Both trees are walked by open directories, so that no link that somebody
//! puts there meanwhile is followed.

use std::{
    ffi::{CStr, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use guestline_archive::{HeldLink, Staged, Temporary, open_harmlessly};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::{Mode, fchmod, futimens, mkdirat},
    unistd::{Gid, Uid, fchown, symlinkat},
};

use super::{
    attributes::time_spec,
    error::{At, FileError, Operation},
    list::next_name,
    metadata::{Kind, Metadata},
    place::{Place, split},
};

/// How deep a copy goes: each level holds two descriptors and a stack frame.
const MAX_DEPTH: usize = 256;

/// One copy, and what it came to so far.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) recursive: bool,
    pub(crate) overwrite: bool,
    pub(crate) preserve: bool,
    /// Regular files copied, and their bytes.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Copies a file, or with `recursive` a tree. A link is followed as `from` itself and copied as a link below it; at
/// the target links are not followed but replaced.
pub(crate) fn copy(from: &Path, to: &Path, mut copy: Copy) -> Result<Copy, FileError> {
    let metadata = Metadata::of_name(AT_FDCWD, from, true).at(Operation::Copy, from)?;
    if metadata.kind == Kind::Directory {
        if !copy.recursive {
            return Err(Errno::EISDIR).at(Operation::Copy, from);
        }
        refuse_into_itself(from, to)?;
    }
    // `new/` is a fine name for a directory that is to be made.
    let to = if metadata.kind == Kind::Directory {
        to.components().as_path()
    } else {
        to
    };
    let place = Place::of(to).at(Operation::Copy, to)?;
    let source = Source {
        directory: AT_FDCWD,
        name: from.as_os_str(),
        path: from,
        follow: OFlag::empty(),
        metadata,
    };
    let target = Target {
        directory: &place.directory,
        name: &place.name,
        path: to,
    };
    copy.entry(&source, &target, 0)?;
    Ok(copy)
}

struct Source<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a Path,
    /// O_NOFOLLOW below the root.
    follow: OFlag,
    metadata: Metadata,
}

impl Source<'_> {
    fn open(&self, flags: OFlag) -> Result<OwnedFd, FileError> {
        let flags = OFlag::O_RDONLY | self.follow | flags;
        let opened = open_harmlessly(self.directory, self.name, flags, Mode::empty());
        opened.at(Operation::Open, self.path)
    }
}

struct Target<'a> {
    directory: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Copy {
    fn entry(&mut self, from: &Source<'_>, to: &Target<'_>, depth: usize) -> Result<(), FileError> {
        match from.metadata.kind {
            Kind::Regular => self.file(from, to),
            Kind::Symlink => self.link(from, to),
            Kind::Directory => self.directory(from, to, depth),
            _ => Err(special(from.path)),
        }
    }

    fn file(&mut self, from: &Source<'_>, to: &Target<'_>) -> Result<(), FileError> {
        let mut source = File::from(from.open(OFlag::empty())?);
        let metadata = Metadata::of_open(&source).at(Operation::Stat, from.path)?;
        if metadata.kind != Kind::Regular {
            return Err(special(from.path));
        }
        if !self.overwrite && Metadata::of_name(to.directory, to.name, false).is_ok() {
            // The kernel decides again at the end; this saves the copying.
            return Err(Errno::EEXIST).at(Operation::Copy, to.path);
        }
        let mode = Mode::from_bits_truncate(metadata.mode & 0o777);
        let mut staged = Staged::new(to.directory, mode).at(Operation::Create, to.path)?;
        // copy_file_range(2) where it works, which shares extents where the file system can.
        let bytes = io::copy(&mut source, &mut staged.file).at(Operation::Copy, to.path)?;
        if self.preserve {
            preserve(&metadata, &staged.file).at(Operation::Copy, to.path)?;
        }
        if self.overwrite {
            staged.replace(to.name)
        } else {
            staged.create(to.name)
        }
        .at(Operation::Copy, to.path)?;
        self.files += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn link(&self, from: &Source<'_>, to: &Target<'_>) -> Result<(), FileError> {
        let text = from.metadata.link_target.as_deref();
        let text = text
            .ok_or(Errno::EACCES)
            .at(Operation::ReadLink, from.path)?;
        let made = match symlinkat(text, to.directory, to.name) {
            Err(Errno::EEXIST) if self.overwrite => {
                let make = |name: &OsStr| symlinkat(text, to.directory, name);
                Temporary::make(to.directory.as_fd(), make)
                    .and_then(|((), temporary)| temporary.rename(to.name))
            }
            made => made,
        };
        made.at(Operation::Copy, to.path)?;
        if self.preserve {
            preserve_link(&from.metadata, to).at(Operation::Copy, to.path)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        from: &Source<'_>,
        to: &Target<'_>,
        depth: usize,
    ) -> Result<(), FileError> {
        if depth == MAX_DEPTH {
            let path = from.path.into();
            return Err(FileError::TooDeep { path });
        }
        let source = from.open(OFlag::O_DIRECTORY)?;
        let mut source = Dir::from_fd(source).at(Operation::List, from.path)?;
        let mode = from.metadata.mode & 0o777;
        // It must let us in until all is there.
        let made = mkdirat(
            to.directory,
            to.name,
            Mode::from_bits_truncate(mode | 0o700),
        );
        let new = match made {
            Err(Errno::EEXIST) if self.overwrite => false,
            made => made.map(|()| true).at(Operation::MakeDirectory, to.path)?,
        };
        let target = open_directory(to).at(Operation::Open, to.path)?;
        while let Some((name, _)) = next_name(&mut source).at(Operation::List, from.path)? {
            self.child(&source, from.path, &target, to.path, &name, depth + 1)?;
        }
        if self.preserve {
            preserve(&from.metadata, &target).at(Operation::Copy, to.path)?;
        } else if new && mode & 0o700 != 0o700 {
            let made = Metadata::of_open(&target).at(Operation::Stat, to.path)?;
            let mode = Mode::from_bits_truncate(made.mode & (mode | !0o700));
            fchmod(&target, mode).at(Operation::ChangeMode, to.path)?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        source: &Dir,
        from: &Path,
        target: &OwnedFd,
        to: &Path,
        name: &CStr,
        depth: usize,
    ) -> Result<(), FileError> {
        let name = OsStr::from_bytes(name.to_bytes());
        let (from, to) = (from.join(name), to.join(name));
        let metadata = match Metadata::of_name(source, name, false) {
            // Gone since the directory was read.
            Err(Errno::ENOENT) => return Ok(()),
            metadata => metadata.at(Operation::Stat, &from)?,
        };
        let source = Source {
            directory: source.as_fd(),
            name,
            path: &from,
            follow: OFlag::O_NOFOLLOW,
            metadata,
        };
        let target = Target {
            directory: target,
            name,
            path: &to,
        };
        self.entry(&source, &target, depth)
    }
}

fn open_directory(target: &Target<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(target.directory, target.name, flags, Mode::empty())
}

/// Owner, mode and times. Without the owner, set-id bits would be somebody else's: they go.
fn preserve(old: &Metadata, file: impl AsFd) -> Result<(), Errno> {
    let file = file.as_fd();
    let mode = match fchown(
        file,
        Some(Uid::from_raw(old.uid)),
        Some(Gid::from_raw(old.gid)),
    ) {
        Ok(()) => old.mode,
        Err(Errno::EPERM | Errno::EINVAL) => old.mode & 0o1777,
        Err(errno) => return Err(errno),
    };
    fchmod(file, Mode::from_bits_truncate(mode))?;
    let times = [old.accessed, old.modified].map(|time| time_spec(Some(time)));
    futimens(file, &times[0], &times[1])
}

fn preserve_link(old: &Metadata, to: &Target<'_>) -> Result<(), Errno> {
    // What took the name meanwhile gets nothing of the old link's.
    let Some(link) = HeldLink::open(to.directory, to.name)? else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(old.uid), Gid::from_raw(old.gid));
    match link.set_owner(Some(uid), Some(gid)) {
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    let [accessed, modified] = [old.accessed, old.modified].map(|time| time_spec(Some(time)));
    link.set_times(accessed, modified)
}

/// Such a copy would meet its own result for ever.
fn refuse_into_itself(from: &Path, to: &Path) -> Result<(), FileError> {
    let source = fs::canonicalize(from).at(Operation::Copy, from)?;
    let (parent, name) = split(to.components().as_path());
    let parent = fs::canonicalize(parent).at(Operation::Copy, to)?;
    let target: PathBuf = parent.join(name);
    if target.starts_with(source) {
        return Err(FileError::IntoItself { path: to.into() });
    }
    Ok(())
}

fn special(path: &Path) -> FileError {
    FileError::SpecialFile { path: path.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use nix::unistd::mkfifo;

    use super::*;

    fn how(recursive: bool, overwrite: bool, preserve: bool) -> Copy {
        Copy {
            recursive,
            overwrite,
            preserve,
            files: 0,
            bytes: 0,
        }
    }

    #[test]
    fn a_tree_is_copied_with_its_links_as_links() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        fs::create_dir_all(at("from/sub")).unwrap();
        fs::write(at("from/sub/file"), "content").unwrap();
        fs::write(at("from/tool"), "x").unwrap();
        fs::set_permissions(at("from/tool"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("sub/file", at("from/link")).unwrap();
        fs::set_permissions(at("from/sub"), fs::Permissions::from_mode(0o550)).unwrap();
        symlink("from", at("to-from")).unwrap();

        let done = copy(&at("to-from"), &at("to"), how(true, false, false)).unwrap();
        assert_eq!((done.files, done.bytes), (2, 8));
        assert_eq!(fs::read_to_string(at("to/sub/file")).unwrap(), "content");
        assert_eq!(fs::read_link(at("to/link")).unwrap(), Path::new("sub/file"));
        let mode = |name| fs::metadata(at(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("to/tool"), mode("to/sub")), (0o750, 0o550));
        assert!(matches!(
            copy(&at("from"), &at("to"), how(true, false, false)).unwrap_err(),
            FileError::Refused {
                errno: Errno::EEXIST,
                ..
            }
        ));
        fs::set_permissions(at("to/sub"), fs::Permissions::from_mode(0o700)).unwrap();
        copy(&at("from"), &at("to"), how(true, true, true)).unwrap();
        assert_eq!(mode("to/sub"), 0o550);
        assert_eq!(mode("to/tool"), 0o4750);
        let modified = |name| fs::metadata(at(name)).unwrap().modified().unwrap();
        assert_eq!(modified("to/sub"), modified("from/sub"));
        let of_link = |name| fs::symlink_metadata(at(name)).unwrap().modified().unwrap();
        assert_eq!(of_link("to/link"), of_link("from/link"));
        assert_eq!(fs::read_dir(at("to")).unwrap().count(), 3);
        // So that the temporary directory can go.
        for sub in ["from/sub", "to/sub"] {
            fs::set_permissions(at(sub), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn a_directory_is_not_copied_unasked_or_into_itself() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        fs::create_dir(&from).unwrap();
        let to = from.join("to");
        let error = copy(&from, &to, how(true, false, false)).unwrap_err();
        assert_eq!(error, FileError::IntoItself { path: to.clone() });
        assert!(!to.exists());
        let error = copy(&from, &directory.path().join("b"), how(false, false, false));
        assert!(matches!(
            error,
            Err(FileError::Refused {
                errno: Errno::EISDIR,
                ..
            })
        ));
    }

    #[test]
    fn a_file_is_replaced_only_if_that_is_asked_and_never_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        fs::write(at("from"), "new").unwrap();
        fs::write(at("other"), "other").unwrap();
        symlink("other", at("to")).unwrap();
        let error = copy(&at("from"), &at("to"), how(false, false, false)).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::EEXIST,
                ..
            }
        ));
        copy(&at("from"), &at("to"), how(false, true, false)).unwrap();
        assert_eq!(fs::read_to_string(at("to")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "other");
        mkfifo(&at("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        let error = copy(&at("fifo"), &at("x"), how(false, false, false)).unwrap_err();
        assert_eq!(error, FileError::SpecialFile { path: at("fifo") });
    }
}

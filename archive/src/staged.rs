//! A file that is made out of sight and appears whole, at once.
//!
//! ```text
//! O_TMPFILE in the directory ──► write ──► linkat to the name                     (nothing was there)
//!        │                                 linkat to .guestline-XXXXXXXX, renameat (something was)
//!        └ not supported: .guestline-XXXXXXXX from the start, renamed at the end
//! ```
//!
//! Dropped on the way, nothing stays; killed, a name can stay only of the second and third kind. The second is there from
//! one system call to the next, and cannot be done without: linkat(2) never replaces, and a rename needs a name.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, linkat, unlinkat},
};
use rustix::fs::{RenameFlags, renameat_with};

/// Random names that are tried before somebody is making them on purpose.
const MAX_NAMES: usize = 64;

/// A file under way.
#[derive(Debug)]
pub struct Staged<'a> {
    directory: BorrowedFd<'a>,
    /// To be written.
    pub file: File,
    /// The name that it has meanwhile, to be removed unless it gets its own.
    temporary: Option<Temporary<'a>>,
}

impl<'a> Staged<'a> {
    /// An empty file for that directory. The mode's part is taken by the umask, or by the directory's default ACL.
    pub fn new(directory: &'a OwnedFd, mode: Mode) -> Result<Self, Errno> {
        let directory = directory.as_fd();
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = match openat(directory, ".", flags, mode).map(File::from) {
            // Without /proc it could never get a name.
            Ok(file) if fs::symlink_metadata(path_of(&file)).is_ok() => file,
            // ENOENT is what kernels older than O_TMPFILE say, EISDIR and EOPNOTSUPP some file systems.
            Ok(_) | Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                return Self::named(directory, mode);
            }
            Err(errno) => return Err(errno),
        };
        Ok(Self {
            directory,
            file,
            temporary: None,
        })
    }

    fn named(directory: BorrowedFd<'a>, mode: Mode) -> Result<Self, Errno> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let (file, temporary) =
            Temporary::make(directory, |name| openat(directory, name, flags, mode))?;
        Ok(Self {
            directory,
            file: file.into(),
            temporary: Some(temporary),
        })
    }

    /// Appears under a name that nothing has: EEXIST otherwise.
    pub fn create(&mut self, name: &OsStr) -> Result<(), Errno> {
        match self.temporary.take() {
            None => self.link(name),
            Some(temporary) => temporary.rename_new(name),
        }
    }

    /// Appears under a name, in the place of whatever file has it.
    pub fn replace(&mut self, name: &OsStr) -> Result<(), Errno> {
        if self.temporary.is_none() {
            match self.link(name) {
                Err(Errno::EEXIST) => {}
                result => return result,
            }
            let (_, temporary) = Temporary::make(self.directory, |name| self.link(name))?;
            self.temporary = Some(temporary);
        }
        match self.temporary.take() {
            Some(temporary) => temporary.rename(name),
            None => Ok(()),
        }
    }

    fn link(&self, name: &OsStr) -> Result<(), Errno> {
        linkat(
            AT_FDCWD,
            &path_of(&self.file),
            self.directory,
            name,
            AtFlags::AT_SYMLINK_FOLLOW,
        )
    }
}

/// A name that goes away with this value.
#[derive(Debug)]
pub struct Temporary<'a> {
    directory: BorrowedFd<'a>,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    /// Finds a free random name for what `make` makes.
    pub fn make<T>(
        directory: BorrowedFd<'a>,
        make: impl Fn(&OsStr) -> Result<T, Errno>,
    ) -> Result<(T, Self), Errno> {
        for _ in 0..MAX_NAMES {
            // The keys of RandomState are random per process and differ in each.
            let random = RandomState::new().build_hasher().finish() as u32;
            let name = OsString::from(format!(".guestline-{random:08x}"));
            match make(&name) {
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
                Ok(made) => {
                    let name = Some(name);
                    return Ok((made, Self { directory, name }));
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// Takes its name for good, in the place of whatever file has it.
    pub fn rename(mut self, name: &OsStr) -> Result<(), Errno> {
        if let Some(temporary) = &self.name {
            renameat(self.directory, temporary.as_os_str(), self.directory, name)?;
        }
        self.name = None;
        Ok(())
    }

    /// Takes a name that nothing has: EEXIST otherwise.
    fn rename_new(mut self, name: &OsStr) -> Result<(), Errno> {
        let Some(temporary) = self.name.as_deref() else {
            return Ok(());
        };
        let at = self.directory;
        match renameat_with(at, temporary, at, name, RenameFlags::NOREPLACE) {
            // File systems without RENAME_NOREPLACE (NFS) have hard links: link(2) never replaces.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                return linkat(at, temporary, at, name, AtFlags::empty());
            }
            result => result.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?,
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nobody is left to tell.
            let _ = unlinkat(self.directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &tempfile::TempDir) -> Vec<OsString> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_named_temporary_file_is_placed_or_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let open = OwnedFd::from(File::open(directory.path()).unwrap());
        let mode = Mode::from_bits_truncate(0o600);
        drop(Staged::named(open.as_fd(), mode).unwrap());
        assert!(names(&directory).is_empty());
        for content in ["one", "two"] {
            let mut staged = Staged::named(open.as_fd(), mode).unwrap();
            staged.file.write_all(content.as_bytes()).unwrap();
            staged.replace(OsStr::new("file")).unwrap();
        }
        let mut late = Staged::named(open.as_fd(), mode).unwrap();
        assert_eq!(late.create(OsStr::new("file")), Err(Errno::EEXIST));
        assert_eq!(names(&directory), ["file"]);
        assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"two");
    }
}

//! The entries below a directory, depth first. One open directory for each level, and one page: memory does not grow
//! with what is listed.

use std::{
    ffi::{CStr, CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::OFlag,
    sys::stat::Mode,
};

use super::{
    error::{At, FileError, Operation},
    metadata::{Kind, Metadata},
};

/// What is listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) path: PathBuf,
    /// 1 is the directory itself. Each level below holds a descriptor and a buffer of 32 KiB.
    pub(crate) depth: usize,
    /// Leaves the metadata out.
    pub(crate) names_only: bool,
}

/// What is below a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to the directory that is listed.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) metadata: Option<Metadata>,
    /// Why it, or what is below it, could not be read.
    pub(crate) error: Option<FileError>,
}

/// Lists a directory. `receive` gets each entry and says whether to go on.
pub(crate) fn list(
    listing: &Listing,
    mut receive: impl FnMut(Entry) -> bool,
) -> Result<(), FileError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = Dir::open(&listing.path, flags, Mode::empty()).at(Operation::List, &listing.path)?;
    let mut levels = vec![Level {
        directory: root,
        path: PathBuf::new(),
    }];
    while let Some(mut level) = levels.pop() {
        let depth = levels.len() + 1;
        let (entry, below) = match next_name(&mut level.directory) {
            Ok(Some((name, kind))) => {
                let found = level.entry(listing, &name, kind, depth < listing.depth);
                levels.push(level);
                match found {
                    Some(found) => found,
                    None => continue,
                }
            }
            Ok(None) => continue,
            Err(errno) if depth == 1 => return Err(errno).at(Operation::List, &listing.path),
            Err(errno) => (level.broken(listing, errno), None),
        };
        levels.extend(below);
        if !receive(entry) {
            return Ok(());
        }
    }
    Ok(())
}

struct Level {
    directory: Dir,
    /// Relative to the root of the listing.
    path: PathBuf,
}

impl Level {
    /// An entry, and the level below it where there is one to go down to; `None` if it vanished meanwhile.
    fn entry(
        &self,
        listing: &Listing,
        name: &CStr,
        kind: Option<Kind>,
        descend: bool,
    ) -> Option<(Entry, Option<Self>)> {
        let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
        let mut entry = Entry {
            path,
            kind: kind.unwrap_or(Kind::Unknown),
            metadata: None,
            error: None,
        };
        let full = || listing.path.join(&entry.path);
        if kind.is_none() || !listing.names_only {
            match Metadata::of_name(&self.directory, name, false) {
                Ok(metadata) => {
                    entry.kind = metadata.kind;
                    entry.metadata = Some(metadata).filter(|_| !listing.names_only);
                }
                Err(Errno::ENOENT) => return None,
                Err(errno) => {
                    entry.error = Err::<(), _>(errno).at(Operation::Stat, &full()).err();
                }
            }
        }
        if !descend || entry.kind != Kind::Directory {
            return Some((entry, None));
        }
        match open_below(&self.directory, name) {
            Ok(directory) => {
                let path = entry.path.clone();
                Some((entry, Some(Self { directory, path })))
            }
            Err(Errno::ENOENT) => None,
            Err(errno) => {
                entry.error = Err::<(), _>(errno).at(Operation::List, &full()).err();
                Some((entry, None))
            }
        }
    }

    /// A directory that told some of its entries, and then an error.
    fn broken(&self, listing: &Listing, errno: Errno) -> Entry {
        let full = listing.path.join(&self.path);
        Entry {
            path: self.path.clone(),
            kind: Kind::Directory,
            metadata: None,
            error: Err::<(), _>(errno).at(Operation::List, &full).err(),
        }
    }
}

/// A directory below an open one, never through a link.
fn open_below(directory: &Dir, name: &CStr) -> Result<Dir, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Dir::openat(directory, name, flags, Mode::empty())
}

/// The next name but `.` and `..`, with its kind where the file system tells it.
pub(super) fn next_name(directory: &mut Dir) -> Result<Option<(CString, Option<Kind>)>, Errno> {
    let next = guestline_archive::next_name(directory)?;
    Ok(next.map(|(name, kind)| (name, kind.map(kind_of))))
}

fn kind_of(kind: Type) -> Kind {
    match kind {
        Type::File => Kind::Regular,
        Type::Directory => Kind::Directory,
        Type::Symlink => Kind::Symlink,
        Type::Fifo => Kind::Fifo,
        Type::Socket => Kind::Socket,
        Type::CharacterDevice => Kind::CharacterDevice,
        Type::BlockDevice => Kind::BlockDevice,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;

    fn paths(path: &Path, depth: usize) -> Vec<PathBuf> {
        let listing = Listing {
            path: path.into(),
            depth,
            names_only: false,
        };
        let mut paths = Vec::new();
        let each = |entry: Entry| {
            assert_eq!(entry.error, None);
            assert_eq!(entry.metadata.unwrap().kind, entry.kind);
            paths.push(entry.path);
            true
        };
        list(&listing, each).unwrap();
        paths
    }

    #[test]
    fn the_depth_bounds_what_is_listed_and_links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b/c")).unwrap();
        symlink("a", directory.path().join("link")).unwrap();
        let sorted = |depth| {
            let mut paths = paths(directory.path(), depth);
            paths.sort();
            paths
        };
        let expect = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(sorted(1), expect(&["a", "link"]));
        assert_eq!(sorted(2), expect(&["a", "a/b", "link"]));
        assert_eq!(sorted(9), expect(&["a", "a/b", "a/b/c", "link"]));
        assert_eq!(paths(&directory.path().join("link"), 1), expect(&["b"]));
        fs::write(directory.path().join("file"), "").unwrap();
        let listing = Listing {
            path: directory.path().join("file"),
            depth: 1,
            names_only: true,
        };
        let error = list(&listing, |_| true).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::ENOTDIR,
                ..
            }
        ));
    }

    #[test]
    fn names_are_bytes_and_each_comes_once() {
        let directory = tempfile::tempdir().unwrap();
        let name = |n: u32| {
            let mut name = format!("entry-{n}-").into_bytes();
            name.push(0xff);
            PathBuf::from(OsStr::from_bytes(&name))
        };
        let mut expected: Vec<_> = (0..2000).map(name).collect();
        for name in &expected {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let mut listed = paths(directory.path(), 3);
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_receiver_that_has_enough_ends_the_listing() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let listing = Listing {
            path: directory.path().into(),
            depth: 2,
            names_only: true,
        };
        let mut count = 0;
        let each = |entry: Entry| {
            count += 1;
            assert!(entry.metadata.is_none() && entry.kind == Kind::Directory);
            false
        };
        list(&listing, each).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_directory_that_cannot_be_opened_is_an_entry_with_its_error() {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let level = Level {
            directory: Dir::open(directory.path(), flags, Mode::empty()).unwrap(),
            path: "sub".into(),
        };
        let listing = Listing {
            path: "/root".into(),
            depth: 9,
            names_only: true,
        };
        // Longer than the kernel takes: the one refusal that root gets too.
        let name = CString::new([b'x'; 300]).unwrap();
        let kind = Some(Kind::Directory);
        let (entry, below) = level.entry(&listing, &name, kind, true).unwrap();
        assert!(below.is_none());
        assert_eq!(entry.path.as_os_str().len(), 304);
        let expected = FileError::Refused {
            operation: Operation::List,
            path: Path::new("/root").join(&entry.path),
            errno: Errno::ENAMETOOLONG,
        };
        assert_eq!(entry.error, Some(expected));
    }
}

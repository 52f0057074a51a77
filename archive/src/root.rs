//! The directory that is unpacked into.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
    unistd::mkdir,
};

use crate::{Error, error::At};

/// An open directory. Nothing above it is touched.
#[derive(Debug)]
pub struct Root {
    pub(crate) directory: OwnedFd,
    /// Whether it was made for this.
    pub(crate) made: bool,
    path: PathBuf,
}

impl Root {
    /// Opens a directory, through links; with `parents`, it is made if it is missing, and what is missing above it too.
    pub fn open(path: &Path, parents: bool) -> Result<Self, Error> {
        let none = Path::new("");
        let mut made = false;
        if parents {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).at("make directory", none)?;
            }
            made = match mkdir(path, Mode::from_bits_truncate(0o777)) {
                Err(Errno::EEXIST) => false,
                made => made.map(|()| true).at("make directory", none)?,
            };
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(AT_FDCWD, path, flags, Mode::empty()).at("open", none)?;
        Ok(Self {
            directory,
            made,
            path: path.into(),
        })
    }

    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

//! What changes names and attributes.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use guestline_proto::v1;

use super::{Files, Metadata, call, from_wire, to_wire};
use crate::Error;

/// What a rename does with something at its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces a file or an empty directory.
    #[default]
    Replace,
    /// Fails.
    NoReplace,
    /// The two change places.
    Exchange,
}

/// How to copy inside the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Also directories, with all below them.
    pub recursive: bool,
    /// Files at the target are replaced; otherwise that is an error.
    pub overwrite: bool,
    /// Keeps permission bits, times, and the owner where the user may give it.
    pub preserve: bool,
}

/// What a copy inside the guest did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Attributes to change; what is `None` stays. The guest goes in the order owner, mode, size, times, and stops at the
/// first refusal.
#[derive(Clone, Debug, Default)]
pub struct SetAttributes {
    /// Acts on a symbolic link itself.
    pub no_follow: bool,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// Permission, set-id and sticky bits.
    pub mode: Option<u32>,
    /// Cuts or extends the file.
    pub size: Option<u64>,
    /// Last read.
    pub accessed: Option<SystemTime>,
    /// Last change of the content.
    pub modified: Option<SystemTime>,
}

/// statvfs(3) of a file system: bytes, and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// All bytes.
    pub total: u64,
    /// Free bytes.
    pub free: u64,
    /// Free to this user.
    pub available: u64,
    /// All inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

impl Files {
    /// Creates a directory, with the permissions 0777 less the umask 022.
    pub async fn create_dir(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.make_directory(path, false, None).await
    }

    /// Creates a directory and its missing parents; one that is there already is a success.
    pub async fn create_dir_all(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.make_directory(path, true, None).await
    }

    /// Creates a directory with these permission bits less the umask.
    pub async fn make_directory(
        &self,
        path: impl AsRef<Path>,
        parents: bool,
        permissions: Option<u32>,
    ) -> Result<(), Error> {
        let path = to_wire(path);
        call!(self.make_directory(v1::MakeDirectoryRequest {
            path,
            parents,
            permissions
        }))?;
        Ok(())
    }

    /// Removes a file, a symbolic link itself, or an empty directory.
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.remove(path, false, false).await
    }

    /// Removes a directory and all below it, never following a symbolic link. Cancelled, it may be half done.
    pub async fn remove_dir_all(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.remove(path, true, false).await
    }

    /// Removes; with `missing_ok`, nothing there is a success.
    pub async fn remove(
        &self,
        path: impl AsRef<Path>,
        recursive: bool,
        missing_ok: bool,
    ) -> Result<(), Error> {
        let path = to_wire(path);
        call!(self.remove(v1::RemoveRequest {
            path,
            recursive,
            missing_ok
        }))?;
        Ok(())
    }

    /// Renames atomically, within one file system.
    pub async fn rename(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        mode: RenameMode,
    ) -> Result<(), Error> {
        let mode = match mode {
            RenameMode::Replace => v1::RenameMode::Unspecified,
            RenameMode::NoReplace => v1::RenameMode::NoReplace,
            RenameMode::Exchange => v1::RenameMode::Exchange,
        };
        let (from, to) = (to_wire(from), to_wire(to));
        call!(self.rename(v1::RenameRequest {
            from,
            to,
            mode: mode.into()
        }))?;
        Ok(())
    }

    /// Copies inside the guest. Each file appears whole or not at all; cancelled, a tree may be half done.
    pub async fn copy(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        options: CopyOptions,
    ) -> Result<Copied, Error> {
        let CopyOptions {
            recursive,
            overwrite,
            preserve,
        } = options;
        let (from, to) = (to_wire(from), to_wire(to));
        let request = v1::CopyRequest {
            from,
            to,
            recursive,
            overwrite,
            preserve,
        };
        let copied = call!(self.copy(request))?;
        Ok(Copied {
            files: copied.files,
            bytes: copied.bytes,
        })
    }

    /// Gives an existing file another name.
    pub async fn hard_link(
        &self,
        existing: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), Error> {
        self.link(existing, path, false).await
    }

    /// Makes a symbolic link at `path` with the text `target`.
    pub async fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), Error> {
        self.link(target, path, true).await
    }

    async fn link(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
        symbolic: bool,
    ) -> Result<(), Error> {
        let (target, path) = (to_wire(target), to_wire(path));
        call!(self.link(v1::LinkRequest {
            target,
            path,
            symbolic
        }))?;
        Ok(())
    }

    /// The text of a symbolic link.
    pub async fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = to_wire(path);
        Ok(from_wire(
            &call!(self.read_link(v1::ReadLinkRequest { path }))?.target,
        ))
    }

    /// Changes attributes, and gives those that the file has then.
    pub async fn set_attributes(
        &self,
        path: impl AsRef<Path>,
        set: SetAttributes,
    ) -> Result<Metadata, Error> {
        let request = v1::SetAttributesRequest {
            path: to_wire(path),
            no_follow: set.no_follow,
            uid: set.uid,
            gid: set.gid,
            mode: set.mode,
            size: set.size,
            accessed: set.accessed.map(Into::into),
            modified: set.modified.map(Into::into),
        };
        Metadata::from_answer(call!(self.set_attributes(request))?.metadata)
    }

    /// Size and free space of the file system that holds a path.
    pub async fn space(&self, path: impl AsRef<Path>) -> Result<Space, Error> {
        let path = to_wire(path);
        let space = call!(self.space(v1::SpaceRequest { path }))?;
        Ok(Space {
            total: space.total,
            free: space.free,
            available: space.available,
            inodes: space.inodes,
            inodes_free: space.inodes_free,
            read_only: space.read_only,
        })
    }
}

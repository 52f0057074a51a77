//! stat(2) of a file in the guest, as a type of the client's own.

use std::{path::PathBuf, time::SystemTime};

use guestline_proto::v1;

use super::from_wire;
use crate::Error;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// Something that this client does not know, or that the guest could not find out.
    Unknown,
}

impl From<v1::FileType> for FileType {
    fn from(wire: v1::FileType) -> Self {
        match wire {
            v1::FileType::Regular => Self::Regular,
            v1::FileType::Directory => Self::Directory,
            v1::FileType::Symlink => Self::Symlink,
            v1::FileType::Fifo => Self::Fifo,
            v1::FileType::Socket => Self::Socket,
            v1::FileType::CharacterDevice => Self::CharacterDevice,
            v1::FileType::BlockDevice => Self::BlockDevice,
            v1::FileType::Unspecified => Self::Unknown,
        }
    }
}

/// The attributes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes; of a symbolic link, the length of its text.
    pub size: u64,
    /// Names that it has.
    pub hard_links: u64,
    /// Its inode number.
    pub inode: u64,
    /// The device that holds it.
    pub device: u64,
    /// Of a device file, the device it stands for.
    pub special_device: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Last read.
    pub accessed: SystemTime,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Last change of content or attributes.
    pub changed: SystemTime,
    /// Of a symbolic link that was not followed: its text.
    pub link_target: Option<PathBuf>,
}

impl Metadata {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type == FileType::Regular
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type == FileType::Symlink
    }

    pub(super) fn from_answer(wire: Option<v1::Metadata>) -> Result<Self, Error> {
        wire.map(Self::from)
            .ok_or_else(|| Error::Protocol("an answer without metadata".into()))
    }
}

impl From<v1::Metadata> for Metadata {
    fn from(wire: v1::Metadata) -> Self {
        Self {
            file_type: wire.r#type().into(),
            mode: wire.mode,
            uid: wire.uid,
            gid: wire.gid,
            size: wire.size,
            hard_links: wire.hard_links,
            inode: wire.inode,
            device: wire.device,
            special_device: wire.special_device,
            blocks: wire.blocks,
            accessed: time(wire.accessed),
            modified: time(wire.modified),
            changed: time(wire.changed),
            link_target: wire.link_target.as_deref().map(from_wire),
        }
    }
}

/// A guest may set times that the host's clock type cannot hold; they become the epoch.
fn time(wire: Option<prost_types::Timestamp>) -> SystemTime {
    wire.and_then(|time| time.try_into().ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

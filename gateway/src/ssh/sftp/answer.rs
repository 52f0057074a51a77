//! Answers, as SFTP's packets.

use std::{os::unix::ffi::OsStrExt, path::Path};

use bytes::Bytes;
use guestline_client::{DirEntry, Metadata, Space};

use super::{
    attributes,
    request::EXTENSIONS,
    status::Status,
    wire::{MAX_PACKET, Packet},
};

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRIBUTES: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// The protocol's version that everybody speaks.
const SFTP: u32 = 3;

/// What of a packet can be data: OpenSSH's own number.
pub(super) const MAX_DATA: u32 = 255 * 1024;

/// In which statvfs(3) counts bytes here.
const BLOCK: u64 = 4096;

/// Of a file's name, on every Linux file system.
const NAME_MAX: u64 = 255;

/// What answers a request.
#[derive(Debug)]
pub(super) enum Answer {
    Status(Status),
    Handle(u64),
    Data(Bytes),
    /// One path, of which no attributes are told.
    Path(Box<Path>),
    Entries(Vec<DirEntry>),
    Attributes(Box<Metadata>),
    Space(Space),
    Limits {
        handles: u64,
    },
}

pub(super) fn version() -> Bytes {
    let packet = Packet::new(VERSION, 256).number(SFTP);
    let with = |packet: Packet, (name, version): (&str, &str)| {
        packet.string(name.as_bytes()).string(version.as_bytes())
    };
    EXTENSIONS.into_iter().fold(packet, with).finish()
}

impl Answer {
    /// To the request of this number.
    pub(super) fn to_packet(&self, number: u32) -> Bytes {
        match self {
            Self::Status(status) => Packet::new(STATUS, 32 + status.text.len())
                .number(number)
                .number(status.code as u32)
                .string(status.text.as_bytes())
                .string(b"en"),
            Self::Handle(handle) => Packet::new(HANDLE, 16)
                .number(number)
                .string(&handle.to_be_bytes()),
            Self::Data(data) => Packet::new(DATA, 8 + data.len())
                .number(number)
                .string(data),
            Self::Path(path) => {
                let name = path.as_os_str().as_bytes();
                let packet = Packet::new(NAME, 32 + 2 * name.len())
                    .number(number)
                    .number(1);
                attributes::write_none(packet.string(name).string(name))
            }
            Self::Entries(entries) => {
                let packet = Packet::new(NAME, 16 + 160 * entries.len())
                    .number(number)
                    .number(entries.len() as u32);
                entries.iter().fold(packet, entry)
            }
            Self::Attributes(metadata) => {
                attributes::write(Packet::new(ATTRIBUTES, 48).number(number), metadata)
            }
            Self::Space(space) => space_of(Packet::new(EXTENDED_REPLY, 96).number(number), space),
            Self::Limits { handles } => Packet::new(EXTENDED_REPLY, 40)
                .number(number)
                .long(MAX_PACKET as u64)
                .long(MAX_DATA.into())
                .long(MAX_DATA.into())
                .long(*handles),
        }
        .finish()
    }
}

fn entry(packet: Packet, entry: &DirEntry) -> Packet {
    let name = entry.name();
    let packet = packet.string(name.as_os_str().as_bytes());
    match &entry.metadata {
        Some(metadata) => {
            let packet = packet.string(&attributes::long_name(name, metadata));
            attributes::write(packet, metadata)
        }
        None => attributes::write_none(packet.string(name.as_os_str().as_bytes())),
    }
}

/// statvfs@openssh.com.
fn space_of(packet: Packet, space: &Space) -> Packet {
    const READ_ONLY: u64 = 1;
    packet
        .long(BLOCK)
        .long(BLOCK)
        .long(space.total / BLOCK)
        .long(space.free / BLOCK)
        .long(space.available / BLOCK)
        .long(space.inodes)
        .long(space.inodes_free)
        .long(space.inodes_free)
        .long(0)
        .long(if space.read_only { READ_ONLY } else { 0 })
        .long(NAME_MAX)
}

//! A file's attributes as SFTP has them: what a request sets, and what an answer tells.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use guestline_client::{FileType, Metadata, SetAttributes};

use super::wire::{Packet, Short, Words};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// All bits of a mode that chmod(2) takes.
const MODE: u32 = 0o7777;

/// What a request wants to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) permissions: Option<u32>,
    /// Last read and last change, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn read(words: &mut Words) -> Result<Self, Short> {
        let flags = words.number()?;
        let mut it = Self::default();
        if flags & SIZE != 0 {
            it.size = Some(words.long()?);
        }
        if flags & OWNER != 0 {
            it.owner = Some((words.number()?, words.number()?));
        }
        if flags & PERMISSIONS != 0 {
            it.permissions = Some(words.number()? & MODE);
        }
        if flags & TIMES != 0 {
            it.times = Some((words.number()?, words.number()?));
        }
        if flags & EXTENDED != 0 {
            // Nobody's: read over. The packet's length bounds the count.
            for _ in 0..words.number()? {
                words.string()?;
                words.string()?;
            }
        }
        Ok(it)
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For the guest.
    pub(super) fn to_set(&self, no_follow: bool) -> SetAttributes {
        let time = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        SetAttributes {
            no_follow,
            uid: self.owner.map(|(uid, _)| uid),
            gid: self.owner.map(|(_, gid)| gid),
            mode: self.permissions,
            size: self.size,
            accessed: self.times.map(|(accessed, _)| time(accessed)),
            modified: self.times.map(|(_, modified)| time(modified)),
        }
    }
}

/// What a file has, into an answer.
pub(super) fn write(packet: Packet, metadata: &Metadata) -> Packet {
    packet
        .number(SIZE | OWNER | PERMISSIONS | TIMES)
        .long(metadata.size)
        .number(metadata.uid)
        .number(metadata.gid)
        .number(type_bits(metadata.file_type) | metadata.mode)
        .number(seconds(metadata.accessed))
        .number(seconds(metadata.modified))
}

/// Nothing is known.
pub(super) fn write_none(packet: Packet) -> Packet {
    packet.number(0)
}

/// S_IFMT of stat(2).
fn type_bits(file_type: FileType) -> u32 {
    match file_type {
        FileType::Fifo => 0o010_000,
        FileType::CharacterDevice => 0o020_000,
        FileType::Directory => 0o040_000,
        FileType::BlockDevice => 0o060_000,
        FileType::Regular => 0o100_000,
        FileType::Symlink => 0o120_000,
        FileType::Socket => 0o140_000,
        _ => 0,
    }
}

/// 32 bits, and no sign.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u32::try_from(since.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
}

/// A line as `ls -l` prints it, with numbers for owners: the gateway does not know the guest's names.
pub(super) fn long_name(name: &Path, metadata: &Metadata) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let modified = humantime::format_rfc3339_seconds(metadata.modified).to_string();
    let line = format!(
        "{} {:>3} {:<8} {:<8} {:>8} {} ",
        mode_text(metadata),
        metadata.hard_links,
        metadata.uid,
        metadata.gid,
        metadata.size,
        modified.replace('T', " ").trim_end_matches('Z'),
    );
    let mut line = line.into_bytes();
    line.extend_from_slice(name.as_os_str().as_bytes());
    line
}

fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.file_type {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '-',
    };
    let mode = metadata.mode;
    let mut text = String::from(kind);
    let thirds = [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')];
    for (shift, special, letter) in thirds {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_by_their_flags() {
        let read = |packet: Packet| Attributes::read(&mut Words::new(packet.finish().slice(5..)));
        let all = Packet::new(0, 0)
            .number(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED)
            .long(5)
            .number(1000)
            .number(1001)
            .number(0o100_644)
            .number(7)
            .number(8)
            .number(1)
            .string(b"name")
            .string(b"value");
        let expected = Attributes {
            size: Some(5),
            owner: Some((1000, 1001)),
            permissions: Some(0o644),
            times: Some((7, 8)),
        };
        assert_eq!(read(all), Ok(expected));
        assert!(read(Packet::new(0, 0).number(0)).unwrap().is_empty());
        // A count that the packet cannot hold.
        let lie = Packet::new(0, 0).number(EXTENDED).number(u32::MAX);
        assert_eq!(read(lie), Err(Short));
    }
}

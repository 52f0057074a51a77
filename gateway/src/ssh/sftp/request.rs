//! What a client asks for: each packet as what it means. Pure, and a stranger's bytes.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use bytes::Bytes;

use super::{
    attributes::Attributes,
    wire::{Short, Words},
};

/// A handle is 8 bytes of ours; another one is nobody's.
pub(super) type HandleName = Bytes;

/// How a file is opened: SSH_FXF_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFlags {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) append: bool,
    pub(super) create: bool,
    pub(super) truncate: bool,
    pub(super) exclusive: bool,
}

impl From<u32> for OpenFlags {
    fn from(bits: u32) -> Self {
        let has = |bit: u32| bits & bit != 0;
        Self {
            read: has(1),
            write: has(2) || has(4),
            append: has(4),
            create: has(8),
            truncate: has(16),
            exclusive: has(32),
        }
    }
}

/// A request without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Open(PathBuf, OpenFlags, Attributes),
    Close(HandleName),
    Read(HandleName, u64, u32),
    Write(HandleName, u64, Bytes),
    Stat(PathBuf),
    LinkStat(PathBuf),
    HandleStat(HandleName),
    Set(PathBuf, Attributes),
    LinkSet(PathBuf, Attributes),
    HandleSet(HandleName, Attributes),
    OpenFolder(PathBuf),
    ReadFolder(HandleName),
    Remove(PathBuf),
    MakeFolder(PathBuf, Attributes),
    RemoveFolder(PathBuf),
    RealPath(PathBuf),
    /// With `~` for home directories.
    ExpandPath(PathBuf),
    Rename(PathBuf, PathBuf),
    /// rename(2): it replaces.
    Replace(PathBuf, PathBuf),
    ReadLink(PathBuf),
    /// The text, and the link.
    Symlink(PathBuf, PathBuf),
    /// The file, and its further name.
    HardLink(PathBuf, PathBuf),
    Sync(HandleName),
    Space(PathBuf),
    HandleSpace(HandleName),
    Limits,
    Unknown,
}

/// A packet without its length, from a client: the request's number, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Init,
    Request(u32, Request),
}

impl Packet {
    pub(super) fn read(packet: Bytes) -> Result<Self, Short> {
        let mut words = Words::new(packet);
        let kind = words.byte()?;
        // Of both the first and all others, a number follows: the version here.
        let number = words.number()?;
        if kind == 1 {
            return Ok(Self::Init);
        }
        Ok(Self::Request(number, Request::read(kind, &mut words)?))
    }
}

impl Request {
    fn read(kind: u8, words: &mut Words) -> Result<Self, Short> {
        Ok(match kind {
            3 => Self::Open(
                path(words)?,
                words.number()?.into(),
                Attributes::read(words)?,
            ),
            4 => Self::Close(words.string()?),
            5 => Self::Read(words.string()?, words.long()?, words.number()?),
            6 => Self::Write(words.string()?, words.long()?, words.string()?),
            7 => Self::LinkStat(path(words)?),
            8 => Self::HandleStat(words.string()?),
            9 => Self::Set(path(words)?, Attributes::read(words)?),
            10 => Self::HandleSet(words.string()?, Attributes::read(words)?),
            11 => Self::OpenFolder(path(words)?),
            12 => Self::ReadFolder(words.string()?),
            13 => Self::Remove(path(words)?),
            14 => Self::MakeFolder(path(words)?, Attributes::read(words)?),
            15 => Self::RemoveFolder(path(words)?),
            16 => Self::RealPath(path(words)?),
            17 => Self::Stat(path(words)?),
            18 => Self::Rename(path(words)?, path(words)?),
            19 => Self::ReadLink(path(words)?),
            // As OpenSSH has it, and so everybody: the text first, against the draft.
            20 => Self::Symlink(path(words)?, path(words)?),
            200 => Self::extended(words)?,
            _ => Self::Unknown,
        })
    }

    fn extended(words: &mut Words) -> Result<Self, Short> {
        let name = words.string()?;
        Ok(match &name[..] {
            b"posix-rename@openssh.com" => Self::Replace(path(words)?, path(words)?),
            b"hardlink@openssh.com" => Self::HardLink(path(words)?, path(words)?),
            b"fsync@openssh.com" => Self::Sync(words.string()?),
            b"statvfs@openssh.com" => Self::Space(path(words)?),
            b"fstatvfs@openssh.com" => Self::HandleSpace(words.string()?),
            b"lsetstat@openssh.com" => Self::LinkSet(path(words)?, Attributes::read(words)?),
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath(path(words)?),
            _ => Self::Unknown,
        })
    }
}

/// The extensions above, and their versions, as OpenSSH's clients look for them.
pub(super) const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Bytes, whatever they are.
fn path(words: &mut Words) -> Result<PathBuf, Short> {
    Ok(OsString::from_vec(words.string()?.into()).into())
}

#[cfg(test)]
mod tests {
    use super::{super::wire::Packet as Out, *};

    fn read(packet: Out) -> Result<Packet, Short> {
        Packet::read(packet.finish().slice(4..))
    }

    #[test]
    fn requests_are_read_as_what_they_mean() {
        let open = Out::new(3, 0).number(9).string(b"/a\xff").number(0x1a);
        let flags = OpenFlags {
            read: false,
            write: true,
            append: false,
            create: true,
            truncate: true,
            exclusive: false,
        };
        let name = PathBuf::from(OsString::from_vec(b"/a\xff".into()));
        let expected = Request::Open(name, flags, Attributes::default());
        assert_eq!(read(open.number(0)), Ok(Packet::Request(9, expected)));
        let write = Out::new(6, 0).number(1).string(b"h").long(5).string(b"x");
        let expected = Request::Write(Bytes::from("h"), 5, Bytes::from("x"));
        assert_eq!(read(write), Ok(Packet::Request(1, expected)));
        assert_eq!(read(Out::new(1, 0).number(3)), Ok(Packet::Init));
        let unknown = Out::new(99, 0).number(4);
        assert_eq!(read(unknown), Ok(Packet::Request(4, Request::Unknown)));
    }

    #[test]
    fn every_announced_extension_is_known() {
        for (name, _) in EXTENSIONS {
            let packet = Out::new(200, 0).number(1).string(name.as_bytes());
            // Two empty strings, or one and no attributes.
            let packet = packet.number(0).number(0);
            let answer = read(packet).unwrap();
            assert_ne!(answer, Packet::Request(1, Request::Unknown), "{name}");
        }
    }

    /// Whatever arrives is read or refused: nothing panics, and nothing is allocated beyond the packet.
    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..50_000_u32 {
            let mut bytes = Vec::new();
            for _ in 0..round % 40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Small numbers, so that lengths fit now and then.
                bytes.push((state % 23) as u8);
            }
            let _ = Packet::read(bytes.into());
        }
    }
}

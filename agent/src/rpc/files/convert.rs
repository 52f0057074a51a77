//! Between the messages of the Files service and the values of the domain. What passes here is well formed: a path is
//! not empty and has no NUL, a number is in its range, an enum is one that we know.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use guestline_proto::v1::{
    self, ChecksumRequest, FileType, ListRequest, ListResponse, ReadRequest, SetAttributesRequest,
    SpaceResponse, WriteStart,
};
use nix::sys::statvfs::{FsFlags, Statvfs};
use prost_types::Timestamp;

use crate::{
    files::{
        Algorithm, Changes, Entry, ExtendedAttribute, Kind, Listing, Metadata, Range, RenameMode,
        Time, Write, WriteMode,
    },
    rpc::status::Failure,
};

/// The deepest listing.
const MAX_DEPTH: u32 = 1024;

/// The most entries of a page.
const MAX_PAGE_ENTRIES: usize = 512;

/// A page ends once it has so many bytes of names. One more entry brings at most two paths of some 256 KiB each (1024
/// names of 255 bytes) and a link's 4 KiB, which stays below the 2 MiB of a message.
const MAX_PAGE_BYTES: usize = 512 * 1024;

/// Where relative paths start.
#[derive(Debug)]
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    pub(super) fn path(&self, field: &'static str, path: &[u8]) -> Result<PathBuf, Failure> {
        Ok(self.0.join(bare_path(field, path)?))
    }

    pub(super) fn read(&self, request: ReadRequest) -> Result<(PathBuf, Range), Failure> {
        let range = Range {
            offset: request.offset,
            length: request.length,
        };
        Ok((self.path("path", &request.path)?, range))
    }

    pub(super) fn checksum(
        &self,
        request: ChecksumRequest,
    ) -> Result<(PathBuf, Range, Algorithm), Failure> {
        use v1::ChecksumAlgorithm as Wire;
        let algorithm = match Wire::try_from(request.algorithm) {
            Ok(Wire::Unspecified | Wire::Sha256) => Algorithm::Sha256,
            Ok(Wire::Blake3) => Algorithm::Blake3,
            Err(_) => return Err(wrong("algorithm", "is not one that this agent knows")),
        };
        let range = Range {
            offset: request.offset,
            length: request.length,
        };
        Ok((self.path("path", &request.path)?, range, algorithm))
    }

    pub(super) fn write(&self, start: WriteStart) -> Result<Write, Failure> {
        use v1::WriteMode as Wire;
        let mode = match Wire::try_from(start.mode) {
            Ok(Wire::Unspecified | Wire::Replace) => WriteMode::Replace,
            Ok(Wire::Truncate) => WriteMode::Truncate,
            Ok(Wire::Append) => WriteMode::Append,
            Ok(Wire::CreateNew) => WriteMode::CreateNew,
            Ok(Wire::WriteAt) => WriteMode::At(start.offset),
            Err(_) => return Err(wrong("mode", "is not a mode that this agent knows")),
        };
        match mode {
            WriteMode::At(offset) if offset > i64::MAX as u64 => {
                return Err(wrong("offset", "is past what a file can have"));
            }
            WriteMode::At(_) => {}
            _ if start.offset != 0 => return Err(wrong("offset", "is for WRITE_AT alone")),
            _ => {}
        }
        Ok(Write {
            path: self.path("path", &start.path)?,
            mode,
            permissions: self::mode("permissions", start.permissions)?,
            parents: start.parents,
            sync: start.sync,
        })
    }

    pub(super) fn listing(&self, request: ListRequest) -> Result<Listing, Failure> {
        let depth = request.depth.unwrap_or(1).max(1);
        if depth > MAX_DEPTH {
            return Err(wrong("depth", "is more than 1024"));
        }
        Ok(Listing {
            path: self.path("path", &request.path)?,
            depth: depth as usize,
            names_only: request.names_only,
        })
    }
}

/// A path as it came, not joined to anything.
pub(super) fn bare_path<'a>(field: &'static str, path: &'a [u8]) -> Result<&'a Path, Failure> {
    if path.is_empty() {
        return Err(wrong(field, "is empty"));
    }
    if path.contains(&0) {
        return Err(wrong(field, "has a NUL byte"));
    }
    Ok(Path::new(OsStr::from_bytes(path)))
}

/// Names of extended attributes.
pub(super) fn attribute_names(
    field: &'static str,
    names: &[Bytes],
) -> Result<Vec<OsString>, Failure> {
    let names = names.iter().map(|name| bare_path(field, name));
    names.map(|name| Ok(name?.into())).collect()
}

/// Extended attributes that are to be set.
pub(super) fn attributes_to_set(
    set: &[v1::ExtendedAttribute],
) -> Result<Vec<ExtendedAttribute>, Failure> {
    let named =
        |it: &v1::ExtendedAttribute| Ok((bare_path("set", &it.name)?.into(), it.value.to_vec()));
    set.iter().map(named).collect()
}

/// Permission, set-id and sticky bits, and nothing else.
pub(super) fn mode(field: &'static str, mode: Option<u32>) -> Result<Option<u32>, Failure> {
    match mode {
        Some(mode) if mode > 0o7777 => Err(wrong(field, "has bits beyond 07777")),
        mode => Ok(mode),
    }
}

pub(super) fn rename_mode(mode: i32) -> Result<RenameMode, Failure> {
    match v1::RenameMode::try_from(mode) {
        Ok(v1::RenameMode::Unspecified) => Ok(RenameMode::Replace),
        Ok(v1::RenameMode::NoReplace) => Ok(RenameMode::NoReplace),
        Ok(v1::RenameMode::Exchange) => Ok(RenameMode::Exchange),
        Err(_) => Err(wrong("mode", "is not a mode that this agent knows")),
    }
}

pub(super) fn changes(request: &SetAttributesRequest) -> Result<Changes, Failure> {
    for (field, given) in [
        ("mode", request.mode.is_some()),
        ("size", request.size.is_some()),
    ] {
        if request.no_follow && given {
            return Err(wrong(field, "is not for `no_follow`: a link has none"));
        }
    }
    for (field, id) in [("uid", request.uid), ("gid", request.gid)] {
        // chown(2) takes it for "as it was".
        if id == Some(u32::MAX) {
            return Err(wrong(field, "is no id"));
        }
    }
    let size = match request.size.map(i64::try_from).transpose() {
        Ok(size) => size,
        Err(_) => return Err(wrong("size", "is past what a file can have")),
    };
    Ok(Changes {
        uid: request.uid,
        gid: request.gid,
        mode: mode("mode", request.mode)?,
        size,
        accessed: time("accessed", request.accessed.as_ref())?,
        modified: time("modified", request.modified.as_ref())?,
    })
}

fn time(field: &'static str, time: Option<&Timestamp>) -> Result<Option<Time>, Failure> {
    let Some(time) = time else {
        return Ok(None);
    };
    if !(0..1_000_000_000).contains(&time.nanos) {
        return Err(wrong(field, "has nanos outside of one second"));
    }
    Ok(Some(Time {
        seconds: time.seconds,
        nanoseconds: time.nanos.into(),
    }))
}

fn wrong(field: &'static str, why: &str) -> Failure {
    Failure::invalid("check the request", format!("`{field}` {why}"))
}

/// Entries that are ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Page {
    entries: Vec<v1::Entry>,
    bytes: usize,
}

impl Page {
    /// Adds an entry, and gives the page away when it is full.
    pub(super) fn push(&mut self, entry: Entry) -> Option<ListResponse> {
        let entry = entry_of(entry);
        let target = entry
            .metadata
            .as_ref()
            .and_then(|it| it.link_target.as_ref());
        self.bytes += entry.path.len()
            + target.map_or(0, Bytes::len)
            + entry.error.as_ref().map_or(0, |error| error.path.len());
        self.entries.push(entry);
        let full = self.entries.len() == MAX_PAGE_ENTRIES || self.bytes >= MAX_PAGE_BYTES;
        if full { self.take() } else { None }
    }

    /// What is left, if anything.
    pub(super) fn take(&mut self) -> Option<ListResponse> {
        self.bytes = 0;
        let entries = std::mem::take(&mut self.entries);
        (!entries.is_empty()).then_some(ListResponse { entries })
    }
}

fn entry_of(entry: Entry) -> v1::Entry {
    v1::Entry {
        path: bytes_of(entry.path.into_os_string()),
        r#type: kind_of(entry.kind).into(),
        metadata: entry.metadata.map(metadata_of),
        error: entry.error.map(|error| Failure::from(error).into_detail()),
    }
}

pub(super) fn metadata_of(metadata: Metadata) -> v1::Metadata {
    v1::Metadata {
        r#type: kind_of(metadata.kind).into(),
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        hard_links: metadata.hard_links,
        inode: metadata.inode,
        device: metadata.device,
        special_device: metadata.special_device,
        blocks: metadata.blocks,
        accessed: Some(timestamp_of(metadata.accessed)),
        modified: Some(timestamp_of(metadata.modified)),
        changed: Some(timestamp_of(metadata.changed)),
        link_target: metadata.link_target.map(bytes_of),
    }
}

pub(super) fn kind_of(kind: Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::Regular,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Unknown => FileType::Unspecified,
    }
}

fn timestamp_of(time: Time) -> Timestamp {
    Timestamp {
        seconds: time.seconds,
        // The kernel keeps it below 1,000,000,000.
        nanos: i32::try_from(time.nanoseconds).unwrap_or(0),
    }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the types of these fields differ between C libraries"
)]
pub(super) fn space_of(space: &Statvfs) -> SpaceResponse {
    let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size() as u64);
    SpaceResponse {
        total: bytes(space.blocks() as u64),
        free: bytes(space.blocks_free() as u64),
        available: bytes(space.blocks_available() as u64),
        inodes: space.files() as u64,
        inodes_free: space.files_free() as u64,
        read_only: space.flags().contains(FsFlags::ST_RDONLY),
    }
}

pub(super) fn bytes_of(text: OsString) -> Bytes {
    text.into_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, v1::ErrorReason::InvalidArgument);
        failure.text.split('`').nth(1).unwrap().into()
    }

    #[test]
    fn a_wrong_field_is_refused_by_its_name() {
        let home = Home("/home/alice".into());
        let path = Bytes::from_static(b"file");
        assert_eq!(field_of(home.path("from", b"")), "from");
        assert_eq!(field_of(home.path("to", b"a\0b")), "to");
        assert_eq!(field_of(mode("permissions", Some(0o10000))), "permissions");
        assert_eq!(field_of(rename_mode(9)), "mode");
        let start = |mode: i32, offset| WriteStart {
            path: path.clone(),
            mode,
            offset,
            ..WriteStart::default()
        };
        let at = v1::WriteMode::WriteAt.into();
        assert_eq!(field_of(home.write(start(99, 0))), "mode");
        assert_eq!(field_of(home.write(start(at, 1 << 63))), "offset");
        assert_eq!(field_of(home.write(start(0, 1))), "offset");
        let depth = |depth| ListRequest {
            path: path.clone(),
            depth: Some(depth),
            names_only: false,
        };
        assert_eq!(field_of(home.listing(depth(1025))), "depth");
        assert_eq!(home.listing(depth(0)).unwrap().depth, 1);
        assert_eq!(home.listing(depth(1024)).unwrap().depth, 1024);
    }

    #[test]
    fn attributes_that_no_file_can_have_are_refused() {
        let request = SetAttributesRequest::default;
        let of = |request| field_of(changes(&request));
        let modified = Some(Timestamp {
            seconds: 0,
            nanos: 1_000_000_000,
        });
        assert_eq!(
            of(SetAttributesRequest {
                modified,
                ..request()
            }),
            "modified"
        );
        let uid = Some(u32::MAX);
        assert_eq!(of(SetAttributesRequest { uid, ..request() }), "uid");
        let size = Some(u64::MAX);
        assert_eq!(of(SetAttributesRequest { size, ..request() }), "size");
        let mode = Some(0o600);
        let no_follow = true;
        let link = SetAttributesRequest {
            mode,
            no_follow,
            ..request()
        };
        assert_eq!(of(link), "mode");
    }

    #[test]
    fn relative_paths_start_at_home_and_absolute_ones_do_not() {
        let home = Home("/home/alice".into());
        assert_eq!(
            home.path("path", b"a/b").unwrap(),
            Path::new("/home/alice/a/b")
        );
        assert_eq!(home.path("path", b"/etc").unwrap(), Path::new("/etc"));
    }
}

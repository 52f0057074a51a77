//! One entry of a stream, as its headers tell it.

/// A moment: seconds since 1970, and nanoseconds after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// What the entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its data follows.
    File,
    /// Its data follows, after the map of its extents; with holes it has this size.
    SparseFile(u64),
    Directory,
    /// With its text.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A FIFO or device: its typeflag.
    Special,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// Bytes of data in the stream.
    pub(crate) stored: u64,
}

/// What is set on what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// & 07777
    pub(crate) mode: u32,
    /// Absent where the stream has none.
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) modified: Time,
}

//! Who is told what goes by: a progress bar, a digest, a list of what was left out.

use std::path::{Path, PathBuf};

/// Why something is not in the stream, or was not made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A FIFO, socket or device, which no stream carries, by its st_mode.
    SpecialFile(u32),
    /// A symbolic link whose text leads out of the directory, and that text.
    OutsideLink(PathBuf),
}

/// Gets each step, in the stream's order. Paths are relative to the directory.
pub trait Observer {
    /// A regular file of that size begins.
    fn file(&mut self, _path: &Path, _size: u64) {}
    /// Its next bytes.
    fn data(&mut self, _bytes: &[u8]) {}
    /// So many of its next bytes are a hole: zeros that nobody sent.
    fn hole(&mut self, _length: u64) {}
    /// All of the file went by, and at the unpacking end it has its name.
    fn file_done(&mut self) {}
    /// Something was left out.
    fn left_out(&mut self, _path: &Path, _why: LeftOut) {}
}

/// Nobody.
impl Observer for () {}

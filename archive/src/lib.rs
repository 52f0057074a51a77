//! Directories as tar streams, and files that appear whole: what agent and client both do with trees that others may
//! change meanwhile, and with streams that others made.
//!
//! ```text
//! pack:    an open directory ──► its names, each opened below it, never through a link ──► header, data, header, …
//! unpack:  header, data, … ──► one open directory a level, from the root down ──► staged file, whole, gets its name
//! ```
//!
//! The stream is POSIX pax (IEEE Std 1003.1, "pax Interchange Format") as GNU tar writes and reads it, with its sparse
//! format 1.0. Of the crate `tar` this takes the header block alone: its own unpacking goes by path, and its reading
//! holds extended headers of any size. Nothing here knows gRPC; all calls block.

mod chunks;
mod entry;
mod error;
mod levels;
mod link;
mod names;
mod observer;
mod opening;
mod pack;
mod path;
mod read;
mod record;
mod root;
mod sparse;
mod staged;
mod umask;
mod unpack;
mod write;

pub use chunks::{Chunks, Piece, Pieces};
pub use error::Error;
pub use link::HeldLink;
pub use names::next_name;
pub use observer::{LeftOut, Observer};
pub use opening::open_harmlessly;
pub use pack::{PackOptions, Packed, pack};
pub use root::Root;
pub use staged::{Staged, Temporary};
pub use umask::umask;
pub use unpack::{OutsideLinks, UnpackOptions, Unpacked, unpack};

#[cfg(test)]
mod tests;

/// How many directories deep a tree may be: each level holds a descriptor, and a stack frame or a buffer.
pub const MAX_DEPTH: usize = 256;

/// The unit of a tar stream.
const BLOCK: usize = 512;

/// Bytes that fill up the last block of so much data.
fn padding(size: u64) -> usize {
    let block = BLOCK as u64;
    ((block - size % block) % block) as usize
}

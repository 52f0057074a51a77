//! Files as the worker's Linux user: blocking calls on paths, made by `rpc::files`. Nothing here asks who may do what:
//! the process is the user, and the kernel's errno is the answer.
//!
//! Where a name is looked at and then changed, both go through one open directory (`place`), so that somebody who swaps
//! a parent meanwhile redirects nothing.

mod at_once;
mod attributes;
mod checksum;
mod copy;
mod directories;
mod error;
mod extended;
mod links;
mod list;
mod metadata;
mod place;
mod read;
mod remove;
mod rename;
mod space;
mod watch;
mod write;

pub(crate) use guestline_archive as archive;

pub(crate) use at_once::AtOnce;
pub(crate) use attributes::{Changes, set_attributes};
pub(crate) use checksum::{Algorithm, checksum};
pub(crate) use copy::{Copy, copy};
pub(crate) use directories::make_directory;
pub(crate) use error::{FileError, Operation};
pub(crate) use extended::{ExtendedAttribute, extended_attributes, set_extended_attributes};
pub(crate) use links::{hard_link, read_link, symbolic_link};
pub(crate) use list::{Entry, Listing, list};
pub(crate) use metadata::{Kind, Metadata, Time, stat};
pub(crate) use read::{Range, Reader};
pub(crate) use remove::remove;
pub(crate) use rename::{RenameMode, rename};
pub(crate) use space::space;
pub(crate) use watch::{Change, ChangeKind, Happened, Watch, watch};
pub(crate) use write::{Piece, Write, WriteMode, Written, write};

//! Users and groups of the guest.

use std::{ffi::OsString, path::PathBuf};

use guestline_proto::v1;

use super::text;

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub name: OsString,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The comment field.
    pub comment: OsString,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The name.
    pub name: OsString,
    /// The group id.
    pub gid: u32,
    /// The members.
    pub members: Vec<OsString>,
}

/// A user to create; what is `None` the guest chooses.
#[derive(Clone, Debug, Default)]
pub struct CreateUser {
    /// `[a-z_][a-z0-9_-]*`, at most 32 bytes.
    pub name: String,
    /// The user id.
    pub uid: Option<u32>,
    /// Supplementary groups, which must be there.
    pub groups: Vec<String>,
    /// The home directory.
    pub home: Option<String>,
    /// The login shell.
    pub shell: Option<String>,
    /// A system user.
    pub system: bool,
    /// The comment field.
    pub comment: String,
}

/// A group to create.
#[derive(Clone, Debug, Default)]
pub struct CreateGroup {
    /// The name.
    pub name: String,
    /// The group id.
    pub gid: Option<u32>,
    /// A system group.
    pub system: bool,
}

impl From<v1::User> for User {
    fn from(wire: v1::User) -> Self {
        Self {
            name: text(wire.name),
            uid: wire.uid,
            gid: wire.gid,
            comment: text(wire.comment),
            home: text(wire.home).into(),
            shell: text(wire.shell).into(),
        }
    }
}

impl From<v1::Group> for Group {
    fn from(wire: v1::Group) -> Self {
        Self {
            name: text(wire.name),
            gid: wire.gid,
            members: wire.members.into_iter().map(text).collect(),
        }
    }
}

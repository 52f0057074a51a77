//! The Linux users and groups of a VM to create: what the SDK sends, and which names and numbers they may have.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::error::{ApiError, Code};

/// Of a user or group (useradd(8)).
const MAX_NAME: usize = 32;

/// A Linux user to create.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct UserSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: Option<u32>,
    #[serde(default)]
    pub(super) gecos: Option<String>,
    #[serde(default)]
    pub(super) groups: Option<Vec<String>>,
    #[serde(default)]
    pub(super) home: Option<String>,
    #[serde(default)]
    pub(super) shell: Option<String>,
    #[serde(default)]
    pub(super) system: Option<bool>,
}

/// A Linux group to create.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct GroupSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) gid: Option<u32>,
    #[serde(default)]
    pub(super) system: Option<bool>,
}

impl UserSpec {
    /// It has nothing but a name.
    pub(super) fn is_plain(&self) -> bool {
        self.uid.is_none()
            && self.gecos.is_none()
            && self.groups.as_ref().is_none_or(Vec::is_empty)
            && self.home.is_none()
            && self.shell.is_none()
            && !self.system.unwrap_or_default()
    }
}

pub(super) fn check_user(user: &UserSpec) -> Result<(), ApiError> {
    check_user_name(&user.name)?;
    let absolute = |path: &Option<String>| path.as_deref().is_none_or(|path| path.starts_with('/'));
    let name = &user.name;
    if user.uid.is_some_and(|uid| uid > 65_535) {
        return Err(ApiError::new(
            Code::UserUidOutOfRange,
            format!("{name}: a uid is from 0 to 65535"),
        ));
    }
    if user.system.unwrap_or_default() && user.uid.is_some_and(|uid| uid > 999) {
        return Err(ApiError::new(
            Code::UserSystemFlagMismatch,
            format!("{name}: a system user's uid is at most 999"),
        ));
    }
    if !absolute(&user.home) {
        return Err(ApiError::new(
            Code::UserHomeInvalid,
            format!("{name}: a home starts with /"),
        ));
    }
    if !absolute(&user.shell) {
        return Err(ApiError::new(
            Code::UserShellInvalid,
            format!("{name}: a shell starts with /"),
        ));
    }
    if user.groups.iter().flatten().any(String::is_empty) {
        return Err(ApiError::new(
            Code::UserGroupEmpty,
            format!("{name}: a group without a name"),
        ));
    }
    Ok(())
}

/// useradd's rule; root and nobody are there already.
fn check_user_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= MAX_NAME && is_plain_name(name) && !is_reserved(name) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::ValidationError,
        format!("{name:?} cannot be a new user's name"),
    ))
}

/// groupadd's.
pub(super) fn check_group(name: &str) -> Result<(), ApiError> {
    let code = match name {
        "" => Code::GroupNameEmpty,
        _ if name.len() > MAX_NAME => Code::GroupNameTooLong,
        _ if is_reserved(name) => Code::GroupNameReserved,
        _ if !is_plain_name(name) => Code::GroupNameInvalidChars,
        _ => return Ok(()),
    };
    Err(ApiError::new(
        code,
        format!("{name:?} cannot be a new group's name"),
    ))
}

fn is_plain_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || byte == b'-';
    name.bytes().next().is_some_and(first) && name.bytes().all(rest)
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "root" | "nobody" | "nogroup")
}

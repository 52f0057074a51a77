//! Linux accounts, read from /etc/passwd and /etc/group as files: a static binary must never load NSS modules. Called
//! by the listener (who is alice?), through `directory` for those that the files do not have, and by the System service.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys::identity::Identity;

/// Where accounts are.
pub(crate) const PASSWD: &str = "/etc/passwd";
/// Where groups are.
pub(crate) const GROUP: &str = "/etc/group";

/// The largest passwd or group file that is read. At some 60 bytes a line, a quarter of a million accounts.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// All that becoming a user takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// As initgroups(3) would set them: the primary group first, then each group that names the user.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

impl Account {
    /// PATH of this user's programs, as processes.proto has it.
    pub(crate) fn search_path(&self) -> &'static str {
        match self.uid {
            0 => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            _ => "/usr/local/bin:/usr/bin:/bin",
        }
    }

    /// Who a process of this user is to the kernel.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
        }
    }
}

/// A line of passwd(5), byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: OsString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) comment: OsString,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// A line of group(5), byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: OsString,
    pub(crate) gid: u32,
    pub(crate) members: Vec<OsString>,
}

/// Why an account could not be looked up.
#[derive(Debug, Error)]
pub(crate) enum AccountError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
}

/// The account of that name, `None` if there is none. Names only: "1000" is not uid 1000.
pub(super) fn find(name: &str) -> Result<Option<Account>, AccountError> {
    match users()?.iter().find(|user| user.name == name) {
        Some(user) => Ok(Some(Account::of(user, &groups()?))),
        None => Ok(None),
    }
}

/// Both files at one moment, for whoever looks for many accounts.
#[derive(Debug)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    pub(crate) fn read() -> Result<Self, AccountError> {
        let (passwd, group) = (read(Path::new(PASSWD))?, read(Path::new(GROUP))?);
        Ok(Self::parse(&passwd, &group))
    }

    pub(crate) fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: lines(passwd).filter_map(parse_user).collect(),
            groups: lines(group).filter_map(parse_group).collect(),
        }
    }

    /// The account of that name, `None` if there is none.
    pub(crate) fn find(&self, name: &str) -> Option<Account> {
        let user = self.users.iter().find(|user| user.name == name)?;
        Some(Account::of(user, &self.groups))
    }
}

impl Account {
    fn of(user: &User, groups: &[Group]) -> Self {
        let names = groups
            .iter()
            .filter(|group| group.members.contains(&user.name));
        Self::with_groups(user, names.map(|group| group.gid))
    }

    /// The primary group comes first, and each once.
    pub(super) fn with_groups(user: &User, others: impl IntoIterator<Item = u32>) -> Self {
        let mut gids = vec![user.gid];
        for gid in others {
            if !gids.contains(&gid) {
                gids.push(gid);
            }
        }
        Self {
            name: user.name.to_string_lossy().into_owned(),
            uid: user.uid,
            gid: user.gid,
            groups: gids,
            home: user.home.clone(),
            shell: user.shell.clone(),
        }
    }
}

/// All users, in the file's order. Lines that passwd(5) does not know are passed over, as libc does.
pub(crate) fn users() -> Result<Vec<User>, AccountError> {
    Ok(lines(&read(Path::new(PASSWD))?)
        .filter_map(parse_user)
        .collect())
}

/// All groups, in the file's order.
pub(crate) fn groups() -> Result<Vec<Group>, AccountError> {
    Ok(lines(&read(Path::new(GROUP))?)
        .filter_map(parse_group)
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>, AccountError> {
    let failed = |source| AccountError::Read {
        path: path.into(),
        source,
    };
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        // An image without the file has no accounts.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    if size > MAX_FILE {
        return Err(AccountError::TooLarge { path: path.into() });
    }
    fs::read(path).map_err(failed)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty() && line[0] != b'#')
}

/// name:password:uid:gid:comment:home:shell
pub(super) fn parse_user(line: &[u8]) -> Option<User> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let [name, _, uid, gid, comment, home, shell] = fields[..] else {
        return None;
    };
    (!name.is_empty()).then_some(())?;
    Some(User {
        name: text(name),
        uid: number(uid)?,
        gid: number(gid)?,
        comment: text(comment),
        home: text(home).into(),
        shell: text(shell).into(),
    })
}

/// name:password:gid:member,member
fn parse_group(line: &[u8]) -> Option<Group> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    (!name.is_empty()).then_some(())?;
    let members = members
        .split(|&byte| byte == b',')
        .filter(|member| !member.is_empty());
    Some(Group {
        name: text(name),
        gid: number(gid)?,
        members: members.map(text).collect(),
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> OsString {
    OsString::from_vec(field.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_passwd_line_is_read_and_a_broken_one_passed_over() {
        let user = parse_user(b"alice:x:1000:100:Alice,,:/home/al\xffice:/bin/sh").unwrap();
        assert_eq!(
            (user.name.as_bytes(), user.uid, user.gid),
            (&b"alice"[..], 1000, 100)
        );
        assert_eq!(user.comment, "Alice,,");
        assert_eq!(user.home.as_os_str().as_bytes(), b"/home/al\xffice");
        for broken in [
            &b""[..],
            b"+::::::",
            b"a:x:-1:1::/:/",
            b"a:x:1",
            b"a:x:99999999999:1::/:/",
            b"a:x:1:1::/:/:more",
        ] {
            assert!(
                parse_user(broken).is_none(),
                "{:?}",
                String::from_utf8_lossy(broken)
            );
        }
    }

    #[test]
    fn a_group_line_lists_its_members() {
        let group = parse_group(b"dev:x:50:alice,bob,").unwrap();
        assert_eq!(
            (group.gid, group.members),
            (50, vec!["alice".into(), "bob".into()])
        );
        assert!(parse_group(b"dev:x:50").is_none());
    }
}

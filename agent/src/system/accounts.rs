//! Linux accounts, read from /etc/passwd and /etc/group as files: a static binary must never load NSS modules. Called
//! by the listener (who is alice?) and by the System service.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use users::os::unix::{GroupExt, UserExt};

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

/// Why an account could not be looked up.
#[derive(Debug, Error)]
pub(crate) enum AccountError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
}

/// The account of that name, `None` if there is none. Names only: "1000" is not uid 1000.
pub(crate) fn find(name: &str) -> Result<Option<Account>, AccountError> {
    let Some(user) = users()?.into_iter().find(|user| user.name() == name) else {
        return Ok(None);
    };
    let mut gids = vec![user.primary_group_id()];
    for group in groups()? {
        let named = group.members().iter().any(|member| member == name);
        if named && !gids.contains(&group.gid()) {
            gids.push(group.gid());
        }
    }
    Ok(Some(Account {
        name: name.into(),
        uid: user.uid(),
        gid: user.primary_group_id(),
        groups: gids,
        home: user.home_dir().into(),
        shell: user.shell().into(),
    }))
}

/// All users, in the file's order. Lines that passwd(5) does not know are passed over, as libc does.
pub(crate) fn users() -> Result<Vec<users::User>, AccountError> {
    Ok(lines(&read(Path::new(PASSWD))?)
        .filter_map(parse_user)
        .collect())
}

/// All groups, in the file's order.
pub(crate) fn groups() -> Result<Vec<users::Group>, AccountError> {
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
fn parse_user(line: &[u8]) -> Option<users::User> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    if name.is_empty() {
        return None;
    }
    let user = users::User::new(number(uid)?, name_of(name), number(gid)?);
    Some(
        user.with_home_dir(&path_of(home))
            .with_shell(&path_of(shell)),
    )
}

/// name:password:gid:member,member
fn parse_group(line: &[u8]) -> Option<users::Group> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    if name.is_empty() {
        return None;
    }
    let members = members
        .split(|&byte| byte == b',')
        .filter(|member| !member.is_empty());
    let group = users::Group::new(number(gid)?, name_of(name));
    Some(members.fold(group, |group, member| group.add_member(name_of(member))))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn name_of(field: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(field)
}

fn path_of(field: &[u8]) -> PathBuf {
    OsString::from_vec(field.to_vec()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwd_line_is_read_and_a_broken_one_passed_over() {
        let user = parse_user(b"alice:x:1000:100:Alice,,:/home/al\xffice:/bin/sh").unwrap();
        assert_eq!(
            (user.name().as_bytes(), user.uid(), user.primary_group_id()),
            (&b"alice"[..], 1000, 100)
        );
        assert_eq!(user.home_dir().as_os_str().as_bytes(), b"/home/al\xffice");
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
        assert_eq!(group.gid(), 50);
        assert_eq!(group.members(), ["alice", "bob"]);
        assert!(parse_group(b"dev:x:50").is_none());
    }
}

//! The second archive, made for each start: the agent and the users.

use std::path::Path;

use super::{archive::Archive, read};
use crate::MachineError;

/// The first user's uid; the others follow.
const FIRST_UID: u32 = 1000;

/// `/overlay/agent`, and `/overlay/{passwd,group,shadow}` with a line a user.
pub(crate) fn overlay(agent: &Path, users: &[String]) -> Result<Vec<u8>, MachineError> {
    users.iter().try_for_each(|user| check_name(user))?;
    let mut archive = Archive::default();
    archive.directory("overlay", 0o755, 0);
    archive.file("overlay/agent", 0o755, 0, read(agent)?);
    let lines = |line: &dyn Fn(&str, u32) -> String| -> Vec<u8> {
        let numbered = users.iter().zip(FIRST_UID..);
        numbered
            .map(|(user, uid)| line(user, uid))
            .collect::<String>()
            .into_bytes()
    };
    archive.file(
        "overlay/passwd",
        0o644,
        0,
        lines(&|user, uid| format!("{user}:x:{uid}:{uid}::/home/{user}:/bin/sh\n")),
    );
    archive.file(
        "overlay/group",
        0o644,
        0,
        lines(&|user, uid| format!("{user}:x:{uid}:\n")),
    );
    archive.file(
        "overlay/shadow",
        0o600,
        0,
        lines(&|user, _| format!("{user}:!:19000:0:99999:7:::\n")),
    );
    archive
        .to_bytes()
        .map_err(MachineError::file("make", "the overlay archive"))
}

/// A name becomes a line of passwd(5), read by root: a `:` in it would make another account.
fn check_name(name: &str) -> Result<(), MachineError> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || byte == b'-';
    let valid =
        name.len() <= 32 && name.bytes().next().is_some_and(first) && name.bytes().all(rest);
    if valid && name != "root" && name != "nobody" {
        return Ok(());
    }
    Err(MachineError::InvalidUser { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_another_account_is_refused() {
        for name in ["", "root", "eve:x:0:0::/root:/bin/sh", "a\nb", "A", "-x"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("alice").unwrap();
    }
}

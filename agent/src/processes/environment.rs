//! The environment of a child, as processes.proto documents it, and the folders its program is looked for in.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt};

use super::spec::ProcessSpec;
use crate::system::accounts::Account;

/// Variables by name.
pub(super) type Environment = BTreeMap<Vec<u8>, Vec<u8>>;

/// What execvp(3) of glibc searches where PATH is not set.
const NO_PATH: &[u8] = b"/bin:/usr/bin";

/// The user's shell; /bin/sh where the passwd entry has none (passwd(5)).
pub(super) fn shell(account: &Account) -> &[u8] {
    match account.shell.as_os_str().as_bytes() {
        b"" => b"/bin/sh",
        shell => shell,
    }
}

/// The documented variables, and over them those of its login session; without those to leave out; then the request's own.
pub(super) fn environment(
    account: &Account,
    spec: &ProcessSpec,
    session: &[(Vec<u8>, Vec<u8>)],
) -> Environment {
    let documented: [(&str, &[u8]); 6] = [
        ("HOME", account.home.as_os_str().as_bytes()),
        ("USER", account.name.as_bytes()),
        ("LOGNAME", account.name.as_bytes()),
        ("SHELL", shell(account)),
        ("PATH", account.search_path().as_bytes()),
        ("LANG", b"C.UTF-8"),
    ];
    let term = spec.terminal.as_ref();
    let term = term.map(|terminal| ("TERM", terminal.term.as_slice()));
    let unset = |name: &[u8]| {
        let mut names = spec.unset_environment.iter();
        names.any(|unset| unset.as_bytes() == name)
    };
    let mut environment: Environment = documented
        .into_iter()
        .chain(term)
        .map(|(name, value)| (name.into(), value.into()))
        .chain(session.iter().cloned())
        .filter(|(name, _)| !unset(name))
        .collect();
    environment.extend(spec.environment.clone());
    environment
}

/// What to try in turn for this program name, by the rules of execvp(3): an empty folder is the working directory.
pub(super) fn candidates(program: &[u8], environment: &Environment) -> Vec<Vec<u8>> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = environment.get(&b"PATH"[..]).map_or(NO_PATH, Vec::as_slice);
    path.split(|&byte| byte == b':')
        .map(|folder| match folder {
            b"" => program.to_vec(),
            folder => [folder, b"/", program].concat(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_execvp_does() {
        let path = |path: &[u8]| Environment::from([(b"PATH".to_vec(), path.to_vec())]);
        assert_eq!(
            candidates(b"ls", &path(b"/a::/b")),
            [&b"/a/ls"[..], b"ls", b"/b/ls"]
        );
        assert_eq!(candidates(b"./ls", &path(b"/a")), [b"./ls"]);
        assert_eq!(
            candidates(b"ls", &Environment::new()),
            [&b"/bin/ls"[..], b"/usr/bin/ls"]
        );
        assert!(candidates(b"", &path(b"/a")).is_empty());
    }
}

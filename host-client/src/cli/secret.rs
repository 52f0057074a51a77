//! The VM's secret, from a file: never from the command line, which every user of this host can read.

use std::path::{Path, PathBuf};

use guestline_client::{Endpoint, Secret};
use nix::unistd::geteuid;

use super::{failure::Failure, output::printable_path};

/// The file that was named, or else the one that lies beside the VM's socket.
pub(super) fn find(named: Option<PathBuf>, endpoint: &Endpoint) -> Result<Option<Secret>, Failure> {
    match (named, endpoint.secret_file()) {
        (Some(path), _) => read(&path).map(Some),
        (None, Some(path)) if path.exists() => read(&path).map(Some),
        (None, _) => Ok(None),
    }
}

/// The first of its secrets: a second one is for the agent, while it is changed.
pub(super) fn read(path: &Path) -> Result<Secret, Failure> {
    let unusable = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let path = printable_path(path);
        let cause = cause.unwrap_or_default();
        Failure::Told(format!("no use of the secret in {path}: {error}{cause}"))
    };
    let secrets = Secret::read_file(path, geteuid().as_raw()).map_err(|error| unusable(&error))?;
    // A file without one is an error already.
    let missing = guestline_client::SecretError::Empty;
    secrets.into_iter().next().ok_or_else(|| unusable(&missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_named_or_lies_beside_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let hybrid = Endpoint::Hybrid {
            path: path.clone(),
            port: 777,
        };
        let unix = Endpoint::Unix { path };
        assert!(find(None, &hybrid).unwrap().is_none());
        write(&folder.path().join("vsock.sock.secret"), ONE, 0o600);
        for endpoint in [&hybrid, &unix] {
            assert_eq!(find(None, endpoint).unwrap(), ONE.parse().ok());
        }
        let named = folder.path().join("named");
        write(&named, &format!("{TWO}\n{ONE}\n"), 0o400);
        let found = find(Some(named.clone()), &hybrid).unwrap();
        assert_eq!(found, TWO.parse().ok());
        let vsock = "vsock:3".parse().unwrap();
        assert!(find(None, &vsock).unwrap().is_none());
        assert_eq!(find(Some(named), &vsock).unwrap(), TWO.parse().ok());
    }

    #[test]
    fn a_secret_that_is_missing_or_open_to_others_is_an_error_and_not_none() {
        let folder = tempfile::tempdir().unwrap();
        let vsock = "vsock:3".parse().unwrap();
        let missing = folder.path().join("missing");
        assert!(find(Some(missing), &vsock).is_err());
        let path = folder.path().join("s");
        write(&folder.path().join("s.secret"), ONE, 0o644);
        assert!(find(None, &Endpoint::Unix { path }).is_err());
    }
}

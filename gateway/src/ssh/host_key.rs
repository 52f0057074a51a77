//! The key that proves the gateway to its clients: made once, and kept in the data folder for the owner alone. Gateways
//! behind one name share it: copy the file.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use russh::keys::{
    PrivateKey,
    ssh_key::{self, LineEnding, private::Ed25519Keypair},
};
use thiserror::Error;

use crate::ids::GatewayId;

/// The port that needs no brackets in known_hosts.
const STANDARD_PORT: u16 = 22;

/// There is no host key.
#[derive(Debug, Error)]
pub(crate) enum HostKeyError {
    #[error("cannot read the SSH host key {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the SSH host key {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is no SSH private key")]
    Parse {
        path: PathBuf,
        source: ssh_key::Error,
    },
    #[error("cannot make an SSH host key")]
    Make(#[source] ssh_key::Error),
}

/// The data folder's key, made if it is missing.
pub(crate) fn host_key(data: &Path) -> Result<PrivateKey, HostKeyError> {
    let path = data.join("ssh_host_ed25519_key");
    match fs::read_to_string(&path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(source) => Err(HostKeyError::Read { path, source }),
    }
}

fn parse(path: PathBuf, text: &str) -> Result<PrivateKey, HostKeyError> {
    PrivateKey::from_openssh(text).map_err(|source| HostKeyError::Parse { path, source })
}

/// Of many who make one at once, one succeeds, and all have that: a link does not replace.
fn make(path: PathBuf) -> Result<PrivateKey, HostKeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the kernel gives random bytes (getrandom(2))");
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let text = key.to_openssh(LineEnding::LF).map_err(HostKeyError::Make)?;
    let scratch = path.with_extension(GatewayId::random().as_str());
    let linked = write(&scratch, text.as_bytes()).and_then(|()| fs::hard_link(&scratch, &path));
    let _ = fs::remove_file(&scratch);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = fs::read_to_string(&path);
            parse(
                path.clone(),
                &text.map_err(|source| HostKeyError::Read { path, source })?,
            )
        }
        Err(source) => Err(HostKeyError::Write { path, source }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// What a client has to know, as a line of known_hosts.
pub(crate) fn known_hosts_line(
    key: &PrivateKey,
    host: &str,
    port: u16,
) -> Result<String, HostKeyError> {
    let mut public = key.public_key().clone();
    public.set_comment("");
    let text = public.to_openssh().map_err(HostKeyError::Make)?;
    let host = match port {
        STANDARD_PORT => host.to_owned(),
        _ => format!("[{host}]:{port}"),
    };
    Ok(format!("{host} {}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let made = host_key(folder.path()).unwrap();
        let again = host_key(folder.path()).unwrap();
        assert_eq!(made.public_key(), again.public_key());
        let entries: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(entries.len(), 1);
        let mode = entries[0].metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_known_hosts_line_names_a_port_that_is_not_22() {
        let folder = tempfile::tempdir().unwrap();
        let key = host_key(folder.path()).unwrap();
        let line = known_hosts_line(&key, "gateway.test", 2222).unwrap();
        assert!(
            line.starts_with("[gateway.test]:2222 ssh-ed25519 AAAA"),
            "{line}"
        );
        let line = known_hosts_line(&key, "gateway.test", 22).unwrap();
        assert!(line.starts_with("gateway.test ssh-ed25519 AAAA"), "{line}");
    }
}

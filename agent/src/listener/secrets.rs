//! The VM's secret: where it is looked for, and that a guest which has had one is never open again without it.
//!
//! It is read again at each hello, so that a new one counts from then on, and is in no memory in between.

use std::{
    env,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use guestline_proto::secret::{Secret, SecretError};
use nix::unistd::Uid;
use thiserror::Error;

/// Its name as a credential of our unit (systemd.exec(5)).
const CREDENTIAL: &str = "guestline.secret";

/// Where the kernel's qemu_fw_cfg shows what QEMU was given as `-fw_cfg name=opt/guestline/secret,file=…`. Only root may read it.
const FIRMWARE: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/guestline/secret/raw";

/// Where the secret may be.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// The first that is there counts, and no other.
    places: Vec<PathBuf>,
    /// Whether a connection without it is refused: the owner wants one, or it was there once.
    is_required: AtomicBool,
}

/// Why nobody can be let in.
#[derive(Debug, Error)]
pub(crate) enum SecretsError {
    #[error("no use of the secret in {}", place.display())]
    Unusable { place: PathBuf, source: SecretError },
    #[error("a secret is required, and there is none in any of {places:?}")]
    Missing { places: Vec<PathBuf> },
}

impl Secrets {
    /// `file` is the owner's; a credential of systemd's and QEMU's come after it.
    pub(crate) fn new(file: PathBuf, is_required: bool) -> Self {
        let credentials = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credential = credentials.map(|directory| directory.join(CREDENTIAL));
        let places = [Some(file), credential, Some(FIRMWARE.into())];
        Self {
            places: places.into_iter().flatten().collect(),
            is_required: AtomicBool::new(is_required),
        }
    }

    /// At the start. One that cannot be used is an error; one that is only required may still come.
    pub(super) fn check(&self) -> Result<(), SecretsError> {
        match self.current() {
            Ok(Some(_)) => {}
            Ok(None) => {
                tracing::info!("no secret: whoever opens this guest's vsock on the host is let in")
            }
            Err(error @ SecretsError::Missing { .. }) => {
                tracing::error!(%error, "nobody is let in until there is one");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Each of these lets a host in. `None`: this guest has no secret, and lets in whoever connects.
    ///
    /// A secret that cannot be used, or is not there any more, is an error and never `None`.
    pub(super) fn current(&self) -> Result<Option<Vec<Secret>>, SecretsError> {
        for place in &self.places {
            match Secret::read_file(place, Uid::effective().as_raw()) {
                Ok(secrets) => {
                    if !self.is_required.swap(true, Ordering::Relaxed) {
                        tracing::info!(place = %place.display(), "hosts must prove that they have this guest's secret");
                    }
                    return Ok(Some(secrets));
                }
                Err(error) if error.is_not_found() => {}
                Err(source) => {
                    self.is_required.store(true, Ordering::Relaxed);
                    let place = place.clone();
                    return Err(SecretsError::Unusable { place, source });
                }
            }
        }
        if self.is_required.load(Ordering::Relaxed) {
            let places = self.places.clone();
            return Err(SecretsError::Missing { places });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";

    fn in_places(places: &[&Path]) -> Secrets {
        Secrets {
            places: places.iter().map(Into::into).collect(),
            is_required: AtomicBool::new(false),
        }
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn of(text: &str) -> Option<Vec<Secret>> {
        Some(vec![text.parse().unwrap()])
    }

    #[test]
    fn the_first_place_that_has_one_counts_and_it_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let secrets = in_places(&[&first, &second]);
        assert_eq!(secrets.current().unwrap(), None);
        write(&second, ONE, 0o600);
        assert_eq!(secrets.current().unwrap(), of(ONE));
        write(&first, TWO, 0o600);
        assert_eq!(secrets.current().unwrap(), of(TWO));
    }

    #[test]
    fn a_guest_that_has_had_a_secret_is_never_open_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("secret");
        let secrets = in_places(&[&place]);
        write(&place, ONE, 0o600);
        secrets.current().unwrap();
        fs::remove_file(&place).unwrap();
        assert!(matches!(
            secrets.current(),
            Err(SecretsError::Missing { .. })
        ));
        write(&place, "", 0o600);
        assert!(secrets.current().is_err());
        write(&place, TWO, 0o600);
        assert_eq!(secrets.current().unwrap(), of(TWO));
    }

    #[test]
    fn a_secret_that_cannot_be_trusted_opens_nothing_also_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let secrets = in_places(&[&first, &second]);
        write(&first, ONE, 0o644);
        write(&second, TWO, 0o600);
        assert!(matches!(
            secrets.current(),
            Err(SecretsError::Unusable { .. })
        ));
        fs::remove_file(&first).unwrap();
        fs::remove_file(&second).unwrap();
        assert!(secrets.current().is_err());
    }

    #[test]
    fn an_owner_who_requires_a_secret_gets_nobody_let_in_without() {
        let secrets = Secrets::new("/nonexistent".into(), true);
        assert!(matches!(
            secrets.current(),
            Err(SecretsError::Missing { .. })
        ));
    }
}

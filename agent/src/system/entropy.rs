//! Fresh randomness for a guest that may share its generator's state with the snapshot it came from, or with a twin.

use std::fs::File;

use nix::errno::Errno;
use thiserror::Error;

use crate::sys::{errno_of, random};

const DEVICE: &str = "/dev/random";

/// Why the pool was not reseeded.
#[derive(Debug, Error)]
pub(crate) enum EntropyError {
    #[error("the entropy is empty")]
    Empty,
    #[error("{0} bytes of entropy are more than {max}", max = random::MAX_ADDED)]
    TooMuch(usize),
    #[error("{operation} {DEVICE}")]
    Refused {
        operation: &'static str,
        #[source]
        errno: Errno,
    },
}

impl EntropyError {
    /// What it was tried on.
    pub(crate) fn path(&self) -> &'static str {
        DEVICE
    }
}

/// Whether [`reseed`] would take them.
pub(crate) fn check(entropy: &[u8]) -> Result<(), EntropyError> {
    match entropy.len() {
        0 => Err(EntropyError::Empty),
        size if size > random::MAX_ADDED => Err(EntropyError::TooMuch(size)),
        _ => Ok(()),
    }
}

/// Mixes the bytes into the kernel's pool, counted as random in every bit, and makes the generator draw from it at once.
pub(crate) fn reseed(entropy: &[u8]) -> Result<(), EntropyError> {
    check(entropy)?;
    let refused = |operation| move |errno| EntropyError::Refused { operation, errno };
    let device = File::open(DEVICE)
        .map_err(|error| errno_of(&error))
        .map_err(refused("open"))?;
    random::add_entropy(&device, entropy).map_err(refused("add entropy to"))?;
    match random::reseed(&device) {
        // A generator that was never seeded (fewer than 256 bits came so far) takes these bytes when it is.
        Err(Errno::ENODATA) => Ok(()),
        result => result.map_err(refused("reseed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_too_much_are_refused_before_the_kernel_is_asked() {
        assert!(matches!(reseed(&[]), Err(EntropyError::Empty)));
        let much = vec![0; random::MAX_ADDED + 1];
        assert!(matches!(reseed(&much), Err(EntropyError::TooMuch(4097))));
    }
}

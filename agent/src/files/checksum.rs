//! The digest of a file's bytes.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{
    error::FileError,
    read::{Range, Reader},
};

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Blake3,
}

/// Read at a time. Many may be made at once.
const CHUNK: usize = 64 << 10;

/// What went into a digest, and what came out.
#[derive(Debug, Default)]
pub(crate) struct Checksum {
    pub(crate) digest: Vec<u8>,
    pub(crate) size: u64,
}

/// Reads a part of a file and digests it; `None` as soon as `wanted` says that nobody waits for it.
pub(crate) fn checksum(
    path: &Path,
    range: Range,
    algorithm: Algorithm,
    wanted: impl Fn() -> bool,
) -> Result<Option<Checksum>, FileError> {
    let mut reader = Reader::open(path, range)?;
    let mut state = match algorithm {
        Algorithm::Sha256 => State::Sha256(Sha256::new()),
        Algorithm::Blake3 => State::Blake3(Box::default()),
    };
    let mut size = 0;
    while let Some(chunk) = reader.next_chunk(CHUNK)? {
        if !wanted() {
            return Ok(None);
        }
        size += chunk.len() as u64;
        state.update(&chunk);
    }
    let digest = state.finish();
    Ok(Some(Checksum { digest, size }))
}

enum State {
    Sha256(Sha256),
    /// Some 2 KiB.
    Blake3(Box<blake3::Hasher>),
}

impl State {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Blake3(state) => {
                state.update(bytes);
            }
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(state) => state.finalize().to_vec(),
            Self::Blake3(state) => state.finalize().as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn digest(path: &Path, range: Range, algorithm: Algorithm) -> (String, u64) {
        let checksum = checksum(path, range, algorithm, || true).unwrap().unwrap();
        let hex = checksum.digest.iter().map(|byte| format!("{byte:02x}"));
        (hex.collect(), checksum.size)
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "-abc-").unwrap();
        let range = |offset, length| Range { offset, length };
        let abc = range(1, Some(3));
        // FIPS 180-2, appendix B.1; BLAKE3's test_vectors.json for the empty input.
        assert_eq!(
            digest(&path, abc, Algorithm::Sha256),
            (
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
                3
            )
        );
        assert_eq!(
            digest(&path, range(9, None), Algorithm::Blake3),
            (
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".into(),
                0
            )
        );
    }

    #[test]
    fn a_digest_that_nobody_waits_for_ends() {
        let range = Range {
            offset: 0,
            length: None,
        };
        let path = Path::new("/proc/self/exe");
        let given_up = checksum(path, range, Algorithm::Sha256, || false).unwrap();
        assert!(given_up.is_none());
    }
}

//! What a copy of a tree tells while it goes on: its progress, digests if asked for, and what was left out.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use guestline_client::{LeftOut, Observer};
use sha2::{Digest, Sha256};

use super::{
    failure::Failure,
    output::{hex, print, printable_path},
    progress::Progress,
    transfer::Transfer,
};

/// What a hole is made of, for its digest.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// Sees each file of a tree go by, on the thread that packs or unpacks it.
#[derive(Clone)]
pub(super) struct Watch {
    /// The tree in the guest.
    root: PathBuf,
    progress: Arc<Progress>,
    current: PathBuf,
    /// `None` where no digests are asked for.
    digest: Option<Sha256>,
    /// Why digests could not be printed.
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Watch {
    /// `root` is the tree in the guest.
    pub(super) fn new(transfer: &Transfer<'_>, root: &Path) -> Self {
        Self {
            root: root.into(),
            progress: Arc::clone(&transfer.progress),
            current: PathBuf::new(),
            digest: transfer.checksum.then(Sha256::new),
            failure: Arc::default(),
        }
    }

    /// Whether all was told.
    pub(super) fn end(self) -> Result<(), Failure> {
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failure.map_or(Ok(()), Err)
    }
}

impl Observer for Watch {
    fn file(&mut self, path: &Path, size: u64) {
        self.current = self.root.join(path);
        self.progress.file(printable_path(&self.current), size);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.progress.add(bytes.len() as u64);
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }

    fn hole(&mut self, length: u64) {
        self.progress.add(length);
        let Some(digest) = &mut self.digest else {
            return;
        };
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            digest.update(&ZEROS[..part]);
            left -= part as u64;
        }
    }

    fn file_done(&mut self) {
        let Some(digest) = &mut self.digest else {
            return;
        };
        let digest = hex(&digest.finalize_reset());
        let line = format!("{digest}  {}\n", printable_path(&self.current));
        if let Err(failure) = print(line.as_bytes()) {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
        }
    }

    fn left_out(&mut self, path: &Path, why: LeftOut) {
        let path = printable_path(&self.root.join(path));
        let why = match why {
            LeftOut::SpecialFile(_) => "neither file, directory nor link".into(),
            LeftOut::OutsideLink(text) => format!(
                "a link out of the directory, to {}; --outside-links makes it",
                printable_path(&text)
            ),
        };
        self.progress
            .say(&format!("guestline: left out {path}: {why}"));
    }
}

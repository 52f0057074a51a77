//! `guestline cp --resume`: what an earlier copy brought to the target stays if it is the same, and the rest follows.
//!
//! The target is written in place: an atomic copy that is cut leaves nothing to go on with.

use std::{io::SeekFrom, os::unix::fs::PermissionsExt, path::Path};

use guestline_client::{ChecksumAlgorithm, SetAttributes, WriteOptions};
use sha2::{Digest, Sha256};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt},
};

use super::{
    failure::{Failure, OnHost, Trying},
    output::printable_path,
    transfer::{CHUNK, SAFE_BITS, Transfer, local_mode},
};

impl Transfer<'_> {
    /// Completes `to` in the guest, with the permission bits of `from`.
    pub(super) async fn resume_upload(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let files = self.vm.files();
        let (mut source, metadata) = self.source(from).await?;
        let there = match files.stat(to).await {
            Err(error) if error.is_not_found() => 0,
            found => found.trying("read", to, self.vm)?.size,
        };
        let mut digest = Sha256::new();
        let start = match there <= metadata.len() {
            true => {
                hash(&mut source, there, &mut digest, from).await?;
                self.common(&digest, to, there).await?
            }
            false => 0,
        };
        let mode = metadata.permissions().mode() & SAFE_BITS;
        let options = match start {
            0 => {
                digest = Sha256::new();
                WriteOptions::truncate().permissions(mode)
            }
            start => WriteOptions::at(start),
        };
        let to_start = SeekFrom::Start(start);
        source.seek(to_start).await.on_host("read", from)?;
        self.progress.add(start);
        let writer = files.write_with(to, options).await;
        let mut writer = writer.trying("write", to, self.vm)?;
        self.send(&mut source, from, &mut writer, to, &mut digest)
            .await?;
        self.compare(start + writer.sent(), metadata.len(), from)?;
        writer.finish().await.trying("write", to, self.vm)?;
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        let set = files.set_attributes(to, set).await;
        set.trying("set the mode of", to, self.vm)?;
        self.tell(digest, to)
    }

    /// Completes `to` on the host.
    pub(super) async fn resume_download(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let files = self.vm.files();
        let mut options = OpenOptions::new();
        // A new one is nobody else's to read before it has its mode.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut target = options.open(to).await.on_host("write", to)?;
        let there = target.metadata().await.on_host("read", to)?.len();
        let size = files.stat(from).await.trying("read", from, self.vm)?.size;
        let mut digest = Sha256::new();
        let start = match there <= size {
            true => {
                hash(&mut target, there, &mut digest, to).await?;
                self.common(&digest, from, there).await?
            }
            false => 0,
        };
        if start == 0 {
            digest = Sha256::new();
        }
        target.set_len(start).await.on_host("write", to)?;
        let to_start = SeekFrom::Start(start);
        target.seek(to_start).await.on_host("write", to)?;
        let reader = files.open_range(from, start, None).await;
        let mut reader = reader.trying("read", from, self.vm)?;
        let (size, mode) = (reader.metadata().size, local_mode(reader.metadata().mode));
        self.progress.file(printable_path(from), size);
        self.progress.add(start);
        let received = self
            .receive(&mut reader, from, &mut target, to, &mut digest)
            .await?;
        self.compare(start + received, size, from)?;
        let permissions = std::fs::Permissions::from_mode(mode);
        let set = target.set_permissions(permissions).await;
        set.on_host("write", to)?;
        self.tell(digest, from)
    }

    /// `length` where the guest's file begins with so many bytes of that digest, else 0.
    async fn common(&self, digest: &Sha256, guest: &Path, length: u64) -> Result<u64, Failure> {
        if length == 0 {
            return Ok(0);
        }
        let sha256 = ChecksumAlgorithm::Sha256;
        let theirs = self.vm.files();
        let theirs = theirs.checksum_range(guest, sha256, 0, Some(length)).await;
        let theirs = theirs.trying("read", guest, self.vm)?;
        let same = theirs.size == length && theirs.digest[..] == digest.clone().finalize()[..];
        Ok(if same { length } else { 0 })
    }
}

/// Digests the first bytes of a file of this host.
async fn hash(
    file: &mut File,
    length: u64,
    digest: &mut Sha256,
    path: &Path,
) -> Result<(), Failure> {
    let mut part = file.take(length);
    let mut buffer = vec![0; CHUNK];
    loop {
        match part.read(&mut buffer).await.on_host("read", path)? {
            0 => return Ok(()),
            read => digest.update(&buffer[..read]),
        }
    }
}

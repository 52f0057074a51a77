//! One regular file, to the guest or from it, with its size checked and its SHA-256 told if asked for.

use std::{fs::Metadata, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use guestline_archive::umask;
use guestline_client::{FileReader, FileWriter, Vm, WriteOptions};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

use super::{
    failure::{Failure, OnHost, Trying},
    output::{hex, print, printable_path},
    progress::Progress,
};

pub(super) const CHUNK: usize = 1024 * 1024;
/// Copies keep permissions, and never set-id or sticky bits.
pub(super) const SAFE_BITS: u32 = 0o777;

/// The mode on this host of what has this one in the guest: as far as the umask lets it, as scp(1) has it.
pub(super) fn local_mode(guests: u32) -> u32 {
    guests & SAFE_BITS & !umask()
}

/// What copies of many files share.
pub(super) struct Transfer<'a> {
    pub(super) vm: &'a Vm,
    pub(super) progress: Arc<Progress>,
    pub(super) checksum: bool,
    /// Goes on with what an earlier copy left.
    pub(super) resume: bool,
}

impl Transfer<'_> {
    /// Replaces `to` in the guest atomically, with the permission bits of `from`.
    pub(super) async fn upload(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let (mut source, metadata) = self.source(from).await?;
        let options =
            WriteOptions::replace().permissions(metadata.permissions().mode() & SAFE_BITS);
        let writer = self.vm.files().write_with(to, options).await;
        let mut writer = writer.trying("write", to, self.vm)?;
        let mut digest = Sha256::new();
        self.send(&mut source, from, &mut writer, to, &mut digest)
            .await?;
        // The agent compares the size too; this finds a source that changed under us.
        self.compare(writer.sent(), metadata.len(), from)?;
        writer.finish().await.trying("write", to, self.vm)?;
        self.tell(digest, to)
    }

    /// Replaces `to` on the host atomically: what is cut short leaves nothing.
    pub(super) async fn download(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let reader = self.vm.files().open(from).await;
        let mut reader = reader.trying("read", from, self.vm)?;
        let (size, mode) = (reader.metadata().size, local_mode(reader.metadata().mode));
        self.progress.file(printable_path(from), size);
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let partial = tempfile::Builder::new()
            .prefix(".guestline-")
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .on_host("write", to)?;
        let (file, partial) = partial.into_parts();
        let (mut file, mut digest) = (File::from_std(file), Sha256::new());
        let received = self
            .receive(&mut reader, from, &mut file, to, &mut digest)
            .await?;
        // Files of /proc and /sys say 0 and have more.
        if size != 0 {
            self.compare(received, size, from)?;
        }
        let permissions = std::fs::Permissions::from_mode(mode);
        file.set_permissions(permissions)
            .await
            .on_host("write", to)?;
        partial
            .persist(to)
            .map_err(|error| error.error)
            .on_host("write", to)?;
        self.tell(digest, from)
    }

    /// Opens a regular file of the host that is to be sent.
    pub(super) async fn source(&self, from: &Path) -> Result<(File, Metadata), Failure> {
        let source = File::open(from).await.on_host("read", from)?;
        let metadata = source.metadata().await.on_host("read", from)?;
        if !metadata.is_file() {
            let text = format!(
                "cannot copy {}: it is not a regular file",
                printable_path(from)
            );
            return Err(Failure::Told(text));
        }
        self.progress.file(printable_path(from), metadata.len());
        Ok((source, metadata))
    }

    /// Sends all of a file from where it stands.
    pub(super) async fn send(
        &self,
        source: &mut File,
        from: &Path,
        writer: &mut FileWriter,
        to: &Path,
        digest: &mut Sha256,
    ) -> Result<(), Failure> {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if source.read_buf(&mut chunk).await.on_host("read", from)? == 0 {
                return Ok(());
            }
            self.progress.add(chunk.len() as u64);
            digest.update(&chunk);
            writer.write(chunk).await.trying("write", to, self.vm)?;
        }
    }

    /// Writes all that comes to where the file stands, and says how much it was.
    pub(super) async fn receive(
        &self,
        reader: &mut FileReader,
        from: &Path,
        target: &mut File,
        to: &Path,
        digest: &mut Sha256,
    ) -> Result<u64, Failure> {
        let mut received = 0;
        while let Some(chunk) = reader.chunk().await.trying("read", from, self.vm)? {
            received += chunk.len() as u64;
            self.progress.add(chunk.len() as u64);
            digest.update(&chunk);
            target.write_all(&chunk).await.on_host("write", to)?;
        }
        target.flush().await.on_host("write", to)?;
        Ok(received)
    }

    pub(super) fn compare(&self, copied: u64, expected: u64, path: &Path) -> Result<(), Failure> {
        if copied == expected {
            return Ok(());
        }
        let path = printable_path(path);
        Err(Failure::Told(format!(
            "cannot copy {path}: it changed meanwhile ({expected} bytes, then {copied}); copy it again"
        )))
    }

    /// As sha256sum(1): the digest of what passed through here, and the guest's path.
    pub(super) fn tell(&self, digest: Sha256, guest: &Path) -> Result<(), Failure> {
        if !self.checksum {
            return Ok(());
        }
        print(format!("{}  {}\n", hex(&digest.finalize()), printable_path(guest)).as_bytes())
    }
}

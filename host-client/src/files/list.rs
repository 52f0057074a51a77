//! Listing directories page by page.

use std::path::{Path, PathBuf};

use guestline_proto::v1::{self, ListResponse};
use tonic::Streaming;

use super::{FileType, Metadata, from_wire};
use crate::{Error, ErrorReason, Vm};

/// Something in a directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct DirEntry {
    /// Relative to the directory that was listed. A stranger's bytes: check before you build a path on the host of it.
    pub path: PathBuf,
    /// What it is.
    pub file_type: FileType,
    /// Its attributes, not following a symbolic link; absent if they could not be read.
    pub metadata: Option<Metadata>,
    /// Why the entry, or what is below it, could not be read.
    pub error: Option<Error>,
}

impl DirEntry {
    /// The last part of the path.
    pub fn name(&self) -> &Path {
        self.path.file_name().map_or(&self.path, Path::new)
    }
}

impl From<v1::Entry> for DirEntry {
    fn from(wire: v1::Entry) -> Self {
        let error = wire.error.as_ref().map(|detail| Error::Operation {
            reason: detail.reason(),
            errno: detail.errno,
            operation: detail.operation.clone(),
            path: from_wire(&detail.path),
            message: reason_text(detail.reason()),
        });
        Self {
            path: from_wire(&wire.path),
            file_type: wire.r#type().into(),
            metadata: wire.metadata.map(Into::into),
            error,
        }
    }
}

fn reason_text(reason: ErrorReason) -> String {
    reason
        .as_str_name()
        .trim_start_matches("ERROR_REASON_")
        .replace('_', " ")
        .to_lowercase()
}

/// Entries as they arrive; one page of at most 512 is held. Dropping it ends the call.
#[derive(Debug)]
pub struct DirStream {
    vm: Vm,
    stream: Streaming<ListResponse>,
    page: std::vec::IntoIter<v1::Entry>,
}

impl DirStream {
    /// Waits for the first page, so that a failure on the directory itself is told at once.
    pub(super) async fn begin(vm: Vm, stream: Streaming<ListResponse>) -> Result<Self, Error> {
        let mut this = Self {
            vm,
            stream,
            page: Vec::new().into_iter(),
        };
        this.fetch().await?;
        Ok(this)
    }

    /// The next entry; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<DirEntry>, Error> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry.into()));
            }
            if !self.fetch().await? {
                return Ok(None);
            }
        }
    }

    async fn fetch(&mut self) -> Result<bool, Error> {
        let page = self
            .stream
            .message()
            .await
            .map_err(|status| self.vm.error(status))?;
        let more = page.is_some();
        self.page = page.unwrap_or_default().entries.into_iter();
        Ok(more)
    }
}

//! The guest's files, in the manner of `std::fs`.

mod change;
mod extended;
mod folder;
mod list;
mod metadata;
mod read;
mod tree;
mod upload;
mod watch;
mod write;

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{self, files_client::FilesClient},
};
use tonic::Streaming;

pub use change::{Copied, CopyOptions, RenameMode, SetAttributes, Space};
pub use extended::{Checksum, ChecksumAlgorithm, ExtendedAttribute};
pub use list::{DirEntry, DirStream};
pub use metadata::{FileType, Metadata};
pub use read::FileReader;
pub use tree::{PullOptions, PullStream, Pulled, PushOptions, PushWriter, Pushed};
pub use watch::{Change, WatchStream, Watched};
pub use write::{FileWriter, WriteOptions};

use crate::{Error, Vm, channel::Channel, pages::collect};

/// Makes the call, and turns its status into our error.
macro_rules! call {
    ($files:ident . $rpc:ident ($request:expr)) => {
        $files
            .client()
            .$rpc($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| $files.vm.error(status))
    };
}
use call;

/// The files of a VM, as the user of the [`Vm`] it came from.
///
/// Paths are bytes; a relative one starts at the user's home directory. Dropping the future of a call cancels it in the
/// guest. A change that was cancelled may have happened or not, except where its method says more.
#[derive(Clone, Debug)]
pub struct Files {
    vm: Vm,
}

impl Files {
    pub(crate) fn new(vm: Vm) -> Self {
        Self { vm }
    }

    fn client(&self) -> FilesClient<Channel> {
        FilesClient::new(self.vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// A whole file, however long the guest makes it. For files larger than memory, and guests that are not to be trusted with
    /// it, there is [`Files::open`].
    pub async fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let mut reader = self.open(path).await?;
        let mut content = BytesMut::new();
        while let Some(chunk) = reader.chunk().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }

    /// Opens a file for reading from its start.
    pub async fn open(&self, path: impl AsRef<Path>) -> Result<FileReader, Error> {
        self.open_range(path, 0, None).await
    }

    /// Opens a file for reading `length` bytes (or to the end) from `offset` on.
    pub async fn open_range(
        &self,
        path: impl AsRef<Path>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<FileReader, Error> {
        let request = v1::ReadRequest {
            path: to_wire(path),
            offset,
            length,
        };
        let answer = self.client().read(request).await;
        let stream = answer.map_err(|status| self.vm.error(status))?.into_inner();
        FileReader::begin(self.vm.clone(), stream).await
    }

    /// Replaces or creates a file, atomically: the path names the old content or the whole new one at every moment,
    /// also when this is cancelled or the connection is lost.
    pub async fn write(
        &self,
        path: impl AsRef<Path>,
        content: impl Into<Bytes>,
    ) -> Result<Metadata, Error> {
        let mut writer = self.write_with(path, WriteOptions::replace()).await?;
        writer.write(content).await?;
        writer.finish().await
    }

    /// Starts to write a file piece by piece.
    pub async fn write_with(
        &self,
        path: impl AsRef<Path>,
        options: WriteOptions,
    ) -> Result<FileWriter, Error> {
        FileWriter::begin(self.vm.clone(), self.client(), options.start(to_wire(path))).await
    }

    /// The attributes of what a path leads to.
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.stat_with(path, false).await
    }

    /// The attributes of the path itself, a symbolic link's too.
    pub async fn lstat(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.stat_with(path, true).await
    }

    async fn stat_with(&self, path: impl AsRef<Path>, no_follow: bool) -> Result<Metadata, Error> {
        let request = v1::StatRequest {
            path: to_wire(path),
            no_follow,
        };
        let answer = self.client().stat(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        Metadata::from_answer(answer.into_inner().metadata)
    }

    /// The entries of a directory, in the file system's order: at most 131,072, and 32 MiB of them, [`Error::ListTooLong`]
    /// otherwise. For directories of any size there is [`Files::list`].
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, Error> {
        let pages = self.list_pages(path, 1).await?;
        collect(&self.vm, pages).await
    }

    /// What is below a directory, `depth` levels deep (1 to 1024), depth first.
    pub async fn list(&self, path: impl AsRef<Path>, depth: u32) -> Result<DirStream, Error> {
        let pages = self.list_pages(path, depth).await?;
        DirStream::begin(self.vm.clone(), pages).await
    }

    async fn list_pages(
        &self,
        path: impl AsRef<Path>,
        depth: u32,
    ) -> Result<Streaming<v1::ListResponse>, Error> {
        let request = v1::ListRequest {
            path: to_wire(path),
            depth: Some(depth),
            names_only: false,
        };
        let answer = self.client().list(request).await;
        Ok(answer.map_err(|status| self.vm.error(status))?.into_inner())
    }
}

fn to_wire(path: impl AsRef<Path>) -> Bytes {
    Bytes::copy_from_slice(path.as_ref().as_os_str().as_bytes())
}

fn from_wire(bytes: &[u8]) -> PathBuf {
    std::ffi::OsStr::from_bytes(bytes).into()
}

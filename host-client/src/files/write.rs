//! Writing a file piece by piece, and ending it on purpose.

use bytes::Bytes;
use guestline_proto::{
    MAX_CHUNK_SIZE,
    v1::{
        WriteFinish, WriteMode, WriteRequest, WriteResponse, WriteStart, files_client::FilesClient,
        write_request::Message,
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Metadata, upload::Upload};
use crate::{Error, Vm, channel::Channel};

/// How much of a reader goes into one message: large frames carry vsock best.
const READ_SIZE: usize = MAX_CHUNK_SIZE;

/// How to write a file.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    mode: WriteMode,
    offset: u64,
    permissions: Option<u32>,
    parents: bool,
    sync: bool,
}

impl WriteOptions {
    /// Atomic: the path names the old content or the whole new one, at every moment.
    pub fn replace() -> Self {
        Self::of(WriteMode::Replace)
    }

    /// Empties what is there and writes in place.
    pub fn truncate() -> Self {
        Self::of(WriteMode::Truncate)
    }

    /// Adds at the end.
    pub fn append() -> Self {
        Self::of(WriteMode::Append)
    }

    /// Only if nothing is there; atomic.
    pub fn create_new() -> Self {
        Self::of(WriteMode::CreateNew)
    }

    /// Overwrites from `offset` on, and keeps the rest.
    pub fn at(offset: u64) -> Self {
        Self {
            offset,
            ..Self::of(WriteMode::WriteAt)
        }
    }

    /// The permission bits: exact when replacing, less the umask for a file that is created otherwise.
    pub fn permissions(mut self, mode: u32) -> Self {
        self.permissions = Some(mode);
        self
    }

    /// Creates missing parent directories.
    pub fn parents(mut self, parents: bool) -> Self {
        self.parents = parents;
        self
    }

    /// Answers only after fsync(2).
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    fn of(mode: WriteMode) -> Self {
        Self {
            mode,
            offset: 0,
            permissions: None,
            parents: false,
            sync: false,
        }
    }

    pub(super) fn start(&self, path: Bytes) -> WriteStart {
        WriteStart {
            path,
            mode: self.mode.into(),
            offset: self.offset,
            permissions: self.permissions,
            parents: self.parents,
            sync: self.sync,
        }
    }
}

/// A file being written. Only [`FileWriter::finish`] completes it: dropping it before aborts the call, and where the
/// mode is atomic, the file is then as it was.
#[derive(Debug)]
pub struct FileWriter {
    upload: Upload<WriteRequest, WriteResponse>,
    sent: u64,
}

impl FileWriter {
    pub(super) async fn begin(
        vm: Vm,
        mut client: FilesClient<Channel>,
        start: WriteStart,
    ) -> Result<Self, Error> {
        let call = |requests| async move { client.write(requests).await };
        let mut upload = Upload::begin(vm, call);
        upload.send(request(Message::Start(start))).await?;
        Ok(Self { upload, sent: 0 })
    }

    /// Sends bytes, of any number. Waits while the guest is slower; fails as soon as the guest gave up.
    ///
    /// Not cancel-safe: after dropping the future, it is not known how much was sent; drop the writer then.
    pub async fn write(&mut self, data: impl Into<Bytes>) -> Result<(), Error> {
        let mut data = data.into();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK_SIZE));
            let length = chunk.len() as u64;
            self.upload.send(request(Message::Data(chunk))).await?;
            self.sent += length;
        }
        Ok(())
    }

    /// Sends all that `source` gives, and says how much it was. Holds one chunk of 1 MiB at a time.
    pub async fn write_from(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Result<u64, Error> {
        let before = self.sent;
        loop {
            let mut chunk = Vec::with_capacity(READ_SIZE);
            // One read a message, so that a slow pipe's lines arrive as they come.
            match source.read_buf(&mut chunk).await.map_err(Error::Source)? {
                0 => return Ok(self.sent - before),
                _ => self.write(chunk).await?,
            }
        }
    }

    /// How many bytes were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Completes the file, and gives its attributes.
    pub async fn finish(self) -> Result<Metadata, Error> {
        let size = self.sent;
        let last = request(Message::Finish(WriteFinish { size }));
        let answer = self.upload.finish(last).await?;
        if answer.written != size {
            let text = format!("{size} bytes were sent and {} written", answer.written);
            return Err(Error::Protocol(text));
        }
        Metadata::from_answer(answer.metadata)
    }
}

fn request(message: Message) -> WriteRequest {
    WriteRequest {
        message: Some(message),
    }
}

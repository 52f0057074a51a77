//! Directories as tar streams: bytes, for whoever wants those, and folders of this host packed and unpacked.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use guestline_proto::{
    MAX_CHUNK_SIZE,
    v1::{
        PullRequest, PullResponse, PushFinish, PushRequest, PushResponse, PushStart, pull_response,
        push_request::Message,
    },
};
use tonic::Streaming;

use super::{FileType, Files, from_wire, to_wire, upload::Upload};
use crate::{Error, Vm};

/// How a directory of the guest becomes a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct PullOptions {
    /// Leaves out what is below a directory of another file system.
    pub one_file_system: bool,
}

/// How a stream becomes a directory of the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct PushOptions {
    /// Makes the directory, and what is missing above it.
    pub parents: bool,
    /// Gives what is made the owners of the stream, by number, and set-id bits with them.
    pub owners: bool,
    /// Makes symbolic links also where they lead out of the directory.
    pub outside_links: bool,
}

/// What was unpacked in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Entries, directories and links among them.
    pub entries: u64,
    /// Bytes of regular files, without holes.
    pub bytes: u64,
}

/// What a pull gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pulled {
    /// Bytes of the tar stream, at most 1 MiB.
    Data(Bytes),
    /// A FIFO, socket or device that is not in the stream.
    LeftOut {
        /// Relative to the directory.
        path: PathBuf,
        /// What it is.
        file_type: FileType,
    },
}

/// A tar stream from the guest. It is a stranger's: unpack it with [`Files::pull_to`], or with something as careful.
/// Dropping it ends the call.
#[derive(Debug)]
pub struct PullStream {
    vm: Vm,
    stream: Streaming<PullResponse>,
}

impl PullStream {
    /// What comes next; `None` at the end, when all of the directory is in the stream. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Pulled>, Error> {
        let answer = self.stream.message().await;
        let Some(answer) = answer.map_err(|status| self.vm.error(status))? else {
            return Ok(None);
        };
        match answer.message {
            Some(pull_response::Message::Data(data)) => Ok(Some(Pulled::Data(data))),
            Some(pull_response::Message::LeftOut(entry)) => Ok(Some(Pulled::LeftOut {
                path: from_wire(&entry.path),
                file_type: entry.r#type().into(),
            })),
            None => Err(Error::Protocol("a pull answered nothing".into())),
        }
    }
}

/// A tar stream to the guest. Only [`PushWriter::finish`] completes it: dropping it before aborts the call, and what was
/// unpacked until then stays, each file whole.
#[derive(Debug)]
pub struct PushWriter {
    upload: Upload<PushRequest, PushResponse>,
}

impl PushWriter {
    /// Sends bytes of the stream, of any number. Waits while the guest is slower; fails as soon as the guest gave up.
    ///
    /// Not cancel-safe: after dropping the future, it is not known how much was sent; drop the writer then.
    pub async fn write(&mut self, data: impl Into<Bytes>) -> Result<(), Error> {
        let mut data = data.into();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK_SIZE));
            self.upload.send(request(Message::Data(chunk))).await?;
        }
        Ok(())
    }

    /// Says that the stream is whole, and gives what became of it.
    pub async fn finish(self) -> Result<Pushed, Error> {
        let last = request(Message::Finish(PushFinish {}));
        let answer = self.upload.finish(last).await?;
        Ok(Pushed {
            entries: answer.entries,
            bytes: answer.bytes,
        })
    }
}

impl Files {
    /// A directory, or a single file, as a tar stream (POSIX pax).
    pub async fn pull(
        &self,
        path: impl AsRef<Path>,
        options: PullOptions,
    ) -> Result<PullStream, Error> {
        let request = PullRequest {
            path: to_wire(path),
            one_file_system: options.one_file_system,
        };
        let answer = self.client().pull(request).await;
        let stream = answer.map_err(|status| self.vm.error(status))?.into_inner();
        Ok(PullStream {
            vm: self.vm.clone(),
            stream,
        })
    }

    /// Starts to unpack a tar stream below a directory.
    pub async fn push(
        &self,
        path: impl AsRef<Path>,
        options: PushOptions,
    ) -> Result<PushWriter, Error> {
        let PushOptions {
            parents,
            owners,
            outside_links,
        } = options;
        let start = PushStart {
            path: to_wire(path),
            parents,
            owners,
            outside_links,
        };
        let mut client = self.client();
        let call = |requests| async move { client.push(requests).await };
        let mut upload = Upload::begin(self.vm.clone(), call);
        upload.send(request(Message::Start(start))).await?;
        Ok(PushWriter { upload })
    }
}

fn request(message: Message) -> PushRequest {
    PushRequest {
        message: Some(message),
    }
}

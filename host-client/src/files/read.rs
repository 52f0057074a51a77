//! Reading a file chunk by chunk.

use bytes::Bytes;
use guestline_proto::v1::{ReadResponse, read_response::Message};
use tonic::Streaming;

use super::Metadata;
use crate::{Error, Vm};

/// A file being read. Holds a few MiB at the most, whatever the file's size; dropping it ends the call.
#[derive(Debug)]
pub struct FileReader {
    vm: Vm,
    stream: Streaming<ReadResponse>,
    metadata: Metadata,
}

impl FileReader {
    pub(super) async fn begin(vm: Vm, mut stream: Streaming<ReadResponse>) -> Result<Self, Error> {
        let first = stream.message().await.map_err(|status| vm.error(status))?;
        match first.and_then(|answer| answer.message) {
            Some(Message::Opened(opened)) => Ok(Self {
                vm,
                stream,
                metadata: opened.into(),
            }),
            _ => Err(Error::Protocol(
                "a read that does not begin with what was opened".into(),
            )),
        }
    }

    /// What was opened, as it was then.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The next bytes, at most 1 MiB of them; `None` at the end. Cancel-safe: nothing is lost by dropping the future.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match self
            .stream
            .message()
            .await
            .map_err(|status| self.vm.error(status))?
        {
            None => Ok(None),
            Some(ReadResponse {
                message: Some(Message::Data(data)),
            }) => Ok(Some(data)),
            Some(_) => Err(Error::Protocol(
                "a read answered something else than data".into(),
            )),
        }
    }
}

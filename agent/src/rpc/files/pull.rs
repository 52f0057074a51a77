//! The pull call: a tar stream, in chunks.

use std::{os::unix::ffi::OsStrExt, path::Path};

use bytes::Bytes;
use guestline_proto::{
    MAX_CHUNK_SIZE,
    v1::{Entry, PullResponse, pull_response::Message},
};

use super::convert::kind_of;
use crate::{
    files::{
        Kind,
        archive::{self, Chunks, Error, LeftOut, Observer, PackOptions},
    },
    rpc::{blocking::Sink, status::Failure},
};

/// Packs a tree into the messages of a stream.
pub(super) fn send_tree(
    path: &Path,
    options: PackOptions,
    sink: &Sink<PullResponse>,
) -> Result<(), Failure> {
    let mut chunks = Chunks::new(MAX_CHUNK_SIZE, |chunk| {
        let message = Some(Message::Data(chunk.into()));
        sink.send(PullResponse { message }).is_ok()
    });
    match archive::pack(path, options, &mut chunks, &mut TellLeftOut(sink)) {
        // The client is gone.
        Ok(_) | Err(Error::Stream(_)) => Ok(()),
        Err(error) => Err(error.below(path).into()),
    }
}

struct TellLeftOut<'a>(&'a Sink<PullResponse>);

impl Observer for TellLeftOut<'_> {
    fn left_out(&mut self, path: &Path, why: LeftOut) {
        let kind = match why {
            LeftOut::SpecialFile(mode) => Kind::of(mode),
            // All links are packed.
            LeftOut::OutsideLink(_) => Kind::Symlink,
        };
        let entry = Entry {
            path: Bytes::copy_from_slice(path.as_os_str().as_bytes()),
            r#type: kind_of(kind).into(),
            ..Entry::default()
        };
        let message = Some(Message::LeftOut(entry));
        // A client that is gone ends the stream at its next bytes.
        let _ = self.0.send(PullResponse { message });
    }
}

//! What happens in a directory, as it happens.

use std::path::{Path, PathBuf};

use guestline_proto::v1::{
    WatchEvent, WatchKind, WatchReady, WatchRequest, WatchResponse, watch_response::Message,
};
use tonic::Streaming;

use super::{Files, from_wire, to_wire};
use crate::{Error, Vm};

/// What happened to one name. Paths are relative to the watched directory, and a stranger's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Made, or moved here from outside.
    Created(PathBuf),
    /// Written or truncated; it may still be open.
    Modified(PathBuf),
    /// Mode, owner, times, link count or extended attributes; the empty path is the directory itself.
    Attributes(PathBuf),
    /// Removed, or moved away.
    Removed(PathBuf),
    /// Renamed within what is watched.
    Renamed {
        /// The old name.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
}

/// What a watch gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Something happened.
    Changed {
        /// What.
        change: Change,
        /// To a directory.
        directory: bool,
    },
    /// Changes were lost, because somebody was too slow: list again. The watch goes on.
    Overflow,
    /// The last: the directory was removed, renamed or unmounted.
    Gone,
}

/// Changes as they come. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchStream {
    vm: Vm,
    stream: Streaming<WatchResponse>,
    ready: WatchReady,
}

impl WatchStream {
    /// How many directories are watched at its start.
    pub fn directories(&self) -> u64 {
        self.ready.directories
    }

    /// How many the user may not read: nothing in them is told.
    pub fn refused(&self) -> u64 {
        self.ready.refused
    }

    /// What happens next; `None` after [`Watched::Gone`]. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Watched>, Error> {
        let answer = self.stream.message().await;
        let Some(answer) = answer.map_err(|status| self.vm.error(status))? else {
            return Ok(None);
        };
        match answer.message {
            Some(Message::Event(event)) => watched(&event).map(Some),
            Some(Message::Overflow(_)) => Ok(Some(Watched::Overflow)),
            _ => Err(Error::Protocol("a watch answered something else".into())),
        }
    }
}

fn watched(event: &WatchEvent) -> Result<Watched, Error> {
    let path = from_wire(&event.path);
    let change = match event.kind() {
        WatchKind::Created => Change::Created(path),
        WatchKind::Modified => Change::Modified(path),
        WatchKind::Attributes => Change::Attributes(path),
        WatchKind::Removed => Change::Removed(path),
        WatchKind::Renamed => Change::Renamed {
            from: from_wire(&event.from),
            to: path,
        },
        WatchKind::Gone => return Ok(Watched::Gone),
        WatchKind::Unspecified => {
            return Err(Error::Protocol("a change of an unknown kind".into()));
        }
    };
    Ok(Watched::Changed {
        change,
        directory: event.directory,
    })
}

impl Files {
    /// Watches a directory, and with `recursive` all below it. When this returns, whatever happens from then on is told.
    pub async fn watch(
        &self,
        path: impl AsRef<Path>,
        recursive: bool,
    ) -> Result<WatchStream, Error> {
        let path = to_wire(path);
        let answer = self.client().watch(WatchRequest { path, recursive }).await;
        let mut stream = answer.map_err(|status| self.vm.error(status))?.into_inner();
        let first = stream.message().await;
        let first = first.map_err(|status| self.vm.error(status))?;
        match first.and_then(|answer| answer.message) {
            Some(Message::Ready(ready)) => Ok(WatchStream {
                vm: self.vm.clone(),
                stream,
                ready,
            }),
            _ => Err(Error::Protocol(
                "a watch that does not begin with ready".into(),
            )),
        }
    }
}

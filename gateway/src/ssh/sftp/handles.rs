//! What a session has open: files and folders, by the names that the client knows them by.

use std::collections::HashMap;

use bytes::Bytes;
use guestline_client::DirStream;

use super::{file::OpenFile, request::HandleName, status::Status};

/// At once. More than any client opens, and what `limits@openssh.com` tells.
pub(super) const MAX_HANDLES: usize = 256;

/// Open files that may have a stream of the guest's connection, some MiB each; others begin anew when they are used.
const MAX_STREAMS: usize = 8;

/// Open folders: each has a stream.
const MAX_FOLDERS: usize = 16;

/// Something open.
#[derive(Debug)]
enum Handle {
    File { file: Box<OpenFile>, used: u64 },
    Folder(Box<DirStream>),
}

/// All that is open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    next: u64,
    /// Counts uses: who was used last.
    clock: u64,
}

impl Handles {
    pub(super) fn has_room(&self) -> Result<(), Status> {
        match self.open.len() < MAX_HANDLES {
            true => Ok(()),
            false => Err(Status::failure("too many open files")),
        }
    }

    pub(super) fn has_room_for_folder(&self) -> Result<(), Status> {
        let is_folder = |handle: &&Handle| matches!(handle, Handle::Folder(_));
        match self.open.values().filter(is_folder).count() < MAX_FOLDERS {
            true => self.has_room(),
            false => Err(Status::failure("too many open folders")),
        }
    }

    pub(super) async fn add_file(&mut self, file: OpenFile) -> u64 {
        let file = Box::new(file);
        let name = self.add(Handle::File { file, used: 0 });
        self.note_use(name).await;
        name
    }

    pub(super) fn add_folder(&mut self, folder: DirStream) -> u64 {
        self.add(Handle::Folder(Box::new(folder)))
    }

    fn add(&mut self, handle: Handle) -> u64 {
        self.next += 1;
        self.open.insert(self.next, handle);
        self.next
    }

    /// A file that is about to be used.
    pub(super) async fn file(&mut self, name: &HandleName) -> Result<&mut OpenFile, Status> {
        let name = number(name)?;
        self.note_use(name).await;
        match self.open.get_mut(&name) {
            Some(Handle::File { file, .. }) => Ok(file),
            _ => Err(Status::no_handle()),
        }
    }

    pub(super) fn folder(&mut self, name: &HandleName) -> Result<&mut DirStream, Status> {
        match self.open.get_mut(&number(name)?) {
            Some(Handle::Folder(folder)) => Ok(folder),
            _ => Err(Status::no_handle()),
        }
    }

    pub(super) async fn close(&mut self, name: &HandleName) -> Result<(), Status> {
        match self.open.remove(&number(name)?) {
            Some(Handle::File { file, .. }) => file.close().await,
            Some(Handle::Folder(_)) => Ok(()),
            None => Err(Status::no_handle()),
        }
    }

    /// What was written is seen by the requests that follow, whatever path they name.
    pub(super) async fn settle(&mut self) {
        for handle in self.open.values_mut() {
            if let Handle::File { file, .. } = handle {
                file.settle().await;
            }
        }
    }

    /// Keeps streams to those used last.
    async fn note_use(&mut self, name: u64) {
        self.clock += 1;
        if let Some(Handle::File { used, .. }) = self.open.get_mut(&name) {
            *used = self.clock;
        }
        let mut streaming: Vec<(u64, &mut OpenFile)> = Vec::new();
        for (at, handle) in &mut self.open {
            if let Handle::File { file, used } = handle
                && file.has_stream()
                && *at != name
            {
                streaming.push((*used, file));
            }
        }
        if streaming.len() >= MAX_STREAMS
            && let Some((_, oldest)) = streaming.into_iter().min_by_key(|(used, _)| *used)
        {
            oldest.park().await;
        }
    }
}

fn number(name: &Bytes) -> Result<u64, Status> {
    let bytes: Result<[u8; 8], _> = name[..].try_into();
    bytes
        .map(u64::from_be_bytes)
        .map_err(|_| Status::no_handle())
}

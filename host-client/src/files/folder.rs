//! Folders of this host, packed for the guest and unpacked from it on a thread that may block.
//!
//! ```text
//! folder ──► pack ──► a queue of two chunks ──► PushWriter ──► guest
//! guest ──► PullStream ──► a queue of two chunks ──► unpack ──► folder
//! ```
//!
//! A guest is a stranger: its stream is unpacked as the agent unpacks one, below the folder and nowhere else.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use guestline_archive::{
    Chunks, LeftOut, Observer, OutsideLinks, PackOptions, Packed, Piece, Pieces, Root,
    UnpackOptions, Unpacked, pack, umask, unpack,
};
use guestline_proto::MAX_CHUNK_SIZE;
use tokio::{sync::mpsc, task::JoinError};

use super::{FileType, Files, PullOptions, PullStream, Pulled, PushOptions, Pushed};
use crate::Error;

/// Set-id and sticky bits.
const NOT_FROM_A_STRANGER: u32 = 0o7000;

/// Chunks between the connection and the disk.
const QUEUE: usize = 2;

impl Files {
    /// Copies a folder (or file) of this host below a directory of the guest, which `options` may make. The observer
    /// sees each file as it is read.
    ///
    /// Cancelled, what was unpacked until then stays, each file whole.
    pub async fn push_from(
        &self,
        folder: impl AsRef<Path>,
        path: impl AsRef<Path>,
        options: PushOptions,
        mut observer: impl Observer + Send + 'static,
    ) -> Result<Pushed, Error> {
        let mut writer = self.push(path, options).await?;
        let folder = folder.as_ref().to_owned();
        let (sender, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let packing = tokio::task::spawn_blocking(move || {
            let send = |chunk: Vec<u8>| sender.blocking_send(chunk.into()).is_ok();
            let mut chunks = Chunks::new(MAX_CHUNK_SIZE, send);
            let packed = pack(&folder, PackOptions::default(), &mut chunks, &mut observer);
            packed.map_err(|error| error.below(&folder))
        });
        while let Some(chunk) = queue.recv().await {
            writer.write(chunk).await?;
        }
        let _: Packed = local(packing.await)?;
        writer.finish().await
    }

    /// Copies what is below a directory of the guest (or a single file, by its own name) below a folder of this host,
    /// which is made if it is missing. Permission bits are kept as far as this process's umask lets them, set-id and sticky
    /// bits and owners are not: all is the caller's.
    ///
    /// Whatever the guest sends, nothing outside of the folder is touched. It may send more than the disk holds: bound
    /// that where you must. Cancelled, what was unpacked until then stays, each file whole.
    pub async fn pull_to(
        &self,
        path: impl AsRef<Path>,
        folder: impl AsRef<Path>,
        outside_links: OutsideLinks,
        observer: impl Observer + Send + 'static,
    ) -> Result<Unpacked, Error> {
        let stream = self.pull(path, PullOptions::default()).await?;
        let folder = folder.as_ref().to_owned();
        let observer = Shared(Arc::new(Mutex::new(observer)));
        let mut inner = observer.clone();
        let (sender, mut queue) = mpsc::channel::<Piece<Bytes>>(QUEUE);
        let unpacking = tokio::task::spawn_blocking(move || {
            let below = |error: guestline_archive::Error| error.below(&folder);
            let root = Root::open(&folder, true).map_err(below)?;
            let bytes = Pieces::new(|| queue.blocking_recv().unwrap_or(Piece::Cut));
            let options = UnpackOptions {
                owners: false,
                outside_links,
                mask: NOT_FROM_A_STRANGER | umask(),
            };
            unpack(&root, options, bytes, &mut inner).map_err(below)
        });
        let fed = feed(stream, sender, observer).await;
        let unpacked = local(unpacking.await);
        // What ended the stream explains better why it was cut than what was made of it.
        fed?;
        unpacked
    }
}

/// Passes on what comes, to the end, or until nobody takes it any more.
async fn feed(
    mut stream: PullStream,
    sender: mpsc::Sender<Piece<Bytes>>,
    observer: Shared<impl Observer>,
) -> Result<(), Error> {
    while let Some(pulled) = stream.next().await? {
        match pulled {
            Pulled::Data(data) => {
                if sender.send(Piece::Data(data)).await.is_err() {
                    return Ok(());
                }
            }
            Pulled::LeftOut { path, file_type } => {
                let why = LeftOut::SpecialFile(mode_of(file_type));
                observer.lock().left_out(&path, why);
            }
        }
    }
    // Refused only where the unpacking has failed already, and tells why.
    let _ = sender.send(Piece::End).await;
    Ok(())
}

/// The part of st_mode that says what a file is.
fn mode_of(file_type: FileType) -> u32 {
    use nix::sys::stat::SFlag;
    let flag = match file_type {
        FileType::Regular => SFlag::S_IFREG,
        FileType::Directory => SFlag::S_IFDIR,
        FileType::Symlink => SFlag::S_IFLNK,
        FileType::Fifo => SFlag::S_IFIFO,
        FileType::Socket => SFlag::S_IFSOCK,
        FileType::CharacterDevice => SFlag::S_IFCHR,
        FileType::BlockDevice => SFlag::S_IFBLK,
        FileType::Unknown => SFlag::empty(),
    };
    flag.bits()
}

fn local<T>(done: Result<Result<T, guestline_archive::Error>, JoinError>) -> Result<T, Error> {
    match done {
        Ok(done) => done.map_err(Error::Folder),
        // The observer panicked, or the runtime is being shut down.
        Err(error) => Err(Error::Source(io::Error::other(error))),
    }
}

/// An observer that the thread and the stream both tell.
struct Shared<O>(Arc<Mutex<O>>);

impl<O> Clone for Shared<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O> Shared<O> {
    fn lock(&self) -> MutexGuard<'_, O> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Observer> Observer for Shared<O> {
    fn file(&mut self, path: &Path, size: u64) {
        self.lock().file(path, size);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.lock().data(bytes);
    }

    fn hole(&mut self, length: u64) {
        self.lock().hole(length);
    }

    fn file_done(&mut self) {
        self.lock().file_done();
    }

    fn left_out(&mut self, path: &Path, why: LeftOut) {
        self.lock().left_out(path, why);
    }
}

//! The log's file: JSON lines, each written before the operation that it tells of goes on. So what a gateway was at when it
//! was killed stands there, and the next one on the same folder says that it ended.
//!
//! Lines are known by their place in the file. The checkpoint, a small file beside it, is a place before which every
//! operation has ended and every event is in the store: from there on a crash is looked for.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

use super::{Event, Phase};
use crate::ids::OperationId;

/// The log cannot be kept.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error("cannot open the audit log {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the audit log {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// The file of one gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Where the next line begins.
    end: u64,
    /// The last line may be a part of one: the disk was full, or the host died.
    torn: bool,
    /// Operations that have begun and not ended, and where.
    open: HashMap<OperationId, u64>,
    /// Events that the store does not have yet.
    unstored: BTreeSet<u64>,
    checkpoint: u64,
}

impl LogFile {
    /// Appends to `path`, which is made for the owner alone.
    pub(crate) fn open(path: PathBuf) -> Result<Self, AuditError> {
        let opened = (|| {
            let mut file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path)?;
            let end = file.seek(SeekFrom::End(0))?;
            let mut last = [b'\n'];
            if end > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            Ok((file, end, last != *b"\n"))
        })();
        let (file, end, torn) = match opened {
            Ok(opened) => opened,
            Err(source) => return Err(AuditError::Open { path, source }),
        };
        // A log that was cut or replaced meanwhile is read from its beginning.
        let checkpoint = read_checkpoint(&path).filter(|place| *place <= end);
        let inner = Inner {
            file,
            end,
            torn,
            open: HashMap::new(),
            unstored: BTreeSet::new(),
            checkpoint: checkpoint.unwrap_or(0),
        };
        Ok(Self {
            path,
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// Writes an event; its place. A file that cannot be written is said in the log, and the store has the event all the same.
    pub(super) fn append(&self, event: &Event) -> u64 {
        let mut line = event.to_json();
        line.push('\n');
        self.with(|inner| {
            if inner.torn {
                line.insert(0, '\n');
            }
            let place = inner.end;
            match inner.file.write_all(line.as_bytes()) {
                Ok(()) => {
                    inner.torn = false;
                    inner.end += line.len() as u64;
                }
                Err(error) => {
                    tracing::error!(%error, "the audit log's file cannot be written");
                    inner.torn = true;
                    inner.end = inner.file.stream_position().unwrap_or(inner.end);
                }
            }
            match event.phase {
                Phase::Start => inner.open.insert(event.operation.clone(), place),
                Phase::End => inner.open.remove(&event.operation),
            };
            inner.unstored.insert(place);
            place
        })
    }

    /// The store has these events.
    pub(super) fn stored(&self, places: impl IntoIterator<Item = u64>) {
        self.with(|inner| {
            for place in places {
                inner.unstored.remove(&place);
            }
        });
    }

    /// Moves the checkpoint to where it can be.
    pub(super) fn save_checkpoint(&self) {
        let moved = self.with(|inner| {
            let oldest = inner.open.values().chain(inner.unstored.first()).min();
            let place = oldest.copied().unwrap_or(inner.end);
            let moved = place != inner.checkpoint;
            inner.checkpoint = place;
            moved.then_some(place)
        });
        let Some(place) = moved else { return };
        if let Err(error) = write_checkpoint(&self.path, place) {
            tracing::warn!(%error, "the audit log's checkpoint cannot be written: the next start takes longer");
        }
    }

    /// The lines from the checkpoint on, as an earlier gateway left them. What is no event is passed over.
    pub(super) fn events_since_checkpoint(
        &self,
    ) -> Result<impl Iterator<Item = Result<Event, AuditError>>, AuditError> {
        let failed = |path: &Path, source| AuditError::Read {
            path: path.into(),
            source,
        };
        let mut file = File::open(&self.path).map_err(|error| failed(&self.path, error))?;
        let (from, end) = self.with(|inner| (inner.checkpoint, inner.end));
        file.seek(SeekFrom::Start(from))
            .map_err(|error| failed(&self.path, error))?;
        let path = self.path.clone();
        let lines = BufReader::new(file.take(end - from)).split(b'\n');
        Ok(lines.filter_map(move |line| match line {
            Ok(line) => Event::from_json(&line).map(Ok),
            Err(error) => Some(Err(failed(&path, error))),
        }))
    }

    fn with<T>(&self, action: impl FnOnce(&mut Inner) -> T) -> T {
        action(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn checkpoint_path(log: &Path) -> PathBuf {
    log.with_extension("checkpoint")
}

fn read_checkpoint(log: &Path) -> Option<u64> {
    let text = fs::read_to_string(checkpoint_path(log)).ok()?;
    text.trim().parse().ok()
}

/// Whole or not at all.
fn write_checkpoint(log: &Path, place: u64) -> io::Result<()> {
    let path = checkpoint_path(log);
    let scratch = path.with_extension("part");
    fs::write(&scratch, format!("{place}\n"))?;
    fs::rename(&scratch, &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::event;

    fn open(folder: &tempfile::TempDir) -> LogFile {
        LogFile::open(folder.path().join("audit.jsonl")).unwrap()
    }

    fn left(log: &LogFile) -> Vec<(OperationId, Phase)> {
        let events = log.events_since_checkpoint().unwrap();
        let told = |event: Event| (event.operation, event.phase);
        events.map(|event| told(event.unwrap())).collect()
    }

    #[test]
    fn what_has_not_ended_or_is_not_stored_stays_behind_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder);
        let (one, two) = (OperationId::random(), OperationId::random());
        let mut places = Vec::new();
        for (operation, phase) in [
            (&one, Phase::Start),
            (&one, Phase::End),
            (&two, Phase::Start),
        ] {
            places.push(log.append(&event(operation, phase)));
        }
        log.save_checkpoint();
        assert_eq!(left(&open(&folder)).len(), 3, "nothing is stored yet");
        log.stored(places);
        log.save_checkpoint();
        assert_eq!(left(&open(&folder)), [(two.clone(), Phase::Start)]);
        let end = log.append(&event(&two, Phase::End));
        log.stored([end]);
        log.save_checkpoint();
        assert!(left(&open(&folder)).is_empty());
    }

    #[test]
    fn a_torn_line_costs_itself_alone_and_a_log_that_was_cut_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder);
        let (one, two) = (OperationId::random(), OperationId::random());
        let place = log.append(&event(&one, Phase::Start));
        fs::write(folder.path().join("audit.jsonl"), "{\"time\":\"20").unwrap();
        let again = open(&folder);
        again.append(&event(&two, Phase::Start));
        assert_eq!(left(&open(&folder)), [(two, Phase::Start)]);
        assert_eq!(place, 0);
        write_checkpoint(&folder.path().join("audit.jsonl"), 1 << 40).unwrap();
        assert_eq!(left(&open(&folder)).len(), 1);
    }
}

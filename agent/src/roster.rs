//! The roster: for each worker that takes connections a file `PID` in the runtime directory, with its start time, uid and user.
//! After a restart a process that has such a file, and is still the same by pid and start time, is one of ours, and nobody
//! else can be: only root writes there.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Where it is in the runtime directory.
pub(crate) const FOLDER: &str = "workers";

/// A worker that takes connections, of this listener or a former one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enrolled {
    pub(crate) pid: i32,
    /// With the pid, this very process.
    start: String,
    pub(crate) user: String,
    /// Whom it becomes first of all.
    pub(crate) uid: u32,
}

impl Enrolled {
    /// `None`: there is no such process.
    pub(crate) fn new(pid: i32, uid: u32, user: &str) -> Option<Self> {
        Some(Self {
            pid,
            start: start_time(pid)?,
            user: user.into(),
            uid,
        })
    }

    /// Of a file of the roster. `None` if that process has ended, whoever has its pid now.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.trim_end().splitn(3, ' ');
        let (start, uid, user) = (words.next()?, words.next()?, words.next()?);
        let found = Self {
            pid,
            start: start.into(),
            user: user.into(),
            uid: uid.parse().ok()?,
        };
        found.is_alive().then_some(found)
    }

    /// Whether its pid is still its own.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid).as_deref() == Some(&self.start)
    }
}

/// The files of workers that take connections.
#[derive(Debug)]
pub(crate) struct Roster {
    directory: PathBuf,
}

impl Roster {
    /// Makes the directory, which must be root's (or, in development, the agent's own).
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let workers = directory.join(FOLDER);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&workers)?;
        Ok(Self { directory: workers })
    }

    /// Those of a former listener, by uid; files of workers that ended are removed.
    pub(crate) fn former(&self) -> HashMap<u32, Vec<Enrolled>> {
        let mut former: HashMap<u32, Vec<Enrolled>> = HashMap::new();
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            match Enrolled::read(&entry.path()) {
                Some(found) => former.entry(found.uid).or_default().push(found),
                None => drop(fs::remove_file(entry.path())),
            }
        }
        former
    }

    pub(crate) fn add(&self, pid: i32, uid: u32, user: &str) {
        let written = Enrolled::new(pid, uid, user)
            .ok_or(io::ErrorKind::NotFound.into())
            .and_then(|it| fs::write(self.file(pid), format!("{} {uid} {user}\n", it.start)));
        if let Err(error) = written {
            tracing::warn!(%error, user, "a restarted listener will not find this worker");
        }
    }

    pub(crate) fn remove(&self, pid: i32) {
        let _ = fs::remove_file(self.file(pid));
    }

    fn file(&self, pid: i32) -> PathBuf {
        self.directory.join(pid.to_string())
    }
}

/// The field 22 of /proc/PID/stat (proc(5)), which no later process of that pid shares.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name before it is in parentheses and may have any.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roster_knows_a_process_from_a_later_one_of_its_pid() {
        let directory = tempfile::tempdir().unwrap();
        let roster = Roster::open(directory.path()).unwrap();
        let pid = std::process::id().cast_signed();
        roster.add(pid, 1000, "alice");
        let former = roster.former();
        let found = &former[&1000];
        assert_eq!((former.len(), found.len()), (1, 1));
        assert_eq!((found[0].pid, found[0].user.as_str()), (pid, "alice"));
        assert!(found[0].is_alive());
        fs::write(roster.file(pid), "1 1000 alice\n").unwrap();
        assert!(roster.former().is_empty());
        assert!(!roster.file(pid).exists());
    }
}

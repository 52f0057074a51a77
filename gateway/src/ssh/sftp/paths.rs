//! Where a path of a client's leads: relative ones start where the session does, and a client may ask for the path without
//! links, `.` and `..`, as realpath(3) gives it.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use guestline_client::Files;

use super::status::{Code, Status};

/// As Linux's own bound.
const MAX_LINKS: usize = 40;

/// PATH_MAX.
const MAX_LENGTH: usize = 4096;

/// Where a session's paths begin.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// Of relative paths.
    start: PathBuf,
    home: PathBuf,
}

impl Paths {
    pub(super) fn new(workdir: Option<&str>, home: PathBuf) -> Self {
        Self {
            start: workdir.map_or_else(|| home.clone(), PathBuf::from),
            home,
        }
    }

    /// For the guest's kernel, which resolves the rest.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        // Joining would drop what an empty path stands for: the start itself.
        match path.as_os_str().is_empty() {
            true => self.start.clone(),
            false => self.start.join(path),
        }
    }

    /// `~` and `~/…`; others' homes are not ours to look up.
    pub(super) fn expand(&self, path: &Path) -> Result<PathBuf, Status> {
        let bytes = path.as_os_str().as_bytes();
        match bytes {
            [b'~'] => Ok(self.home.clone()),
            [b'~', b'/', rest @ ..] => Ok(self.home.join(OsStr::from_bytes(rest))),
            [b'~', ..] => {
                let text = "only one's own home directory is expanded";
                Err(Status::failure(text))
            }
            _ => Ok(self.place(path)),
        }
    }
}

/// The path without links, `.` and `..`. What is last need not be there.
pub(super) async fn real(files: &Files, path: &Path) -> Result<PathBuf, Status> {
    let mut left: VecDeque<OsString> = parts(path);
    let mut found = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            found.pop();
            continue;
        }
        let next = found.join(&part);
        if next.as_os_str().len() > MAX_LENGTH {
            return Err(Status::failure("the path is too long"));
        }
        let target = match files.lstat(&next).await {
            Ok(metadata) => metadata.link_target,
            Err(error) if error.is_not_found() && left.is_empty() => return Ok(next),
            Err(error) => return Err(error.into()),
        };
        let Some(target) = target else {
            found = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Status::new(Code::Failure, "too many symbolic links"));
        }
        if target.is_absolute() {
            found = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(found)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_where_the_session_does() {
        let paths = Paths::new(None, "/home/alice".into());
        assert_eq!(paths.place(Path::new("")), Path::new("/home/alice"));
        assert_eq!(
            paths.place(Path::new("a/../b")),
            Path::new("/home/alice/a/../b")
        );
        assert_eq!(paths.place(Path::new("/etc")), Path::new("/etc"));
        let paths = Paths::new(Some("/src"), "/home/alice".into());
        assert_eq!(paths.place(Path::new("x")), Path::new("/src/x"));
        assert_eq!(paths.expand(Path::new("~/x")), Ok("/home/alice/x".into()));
        assert_eq!(paths.expand(Path::new("~")), Ok("/home/alice".into()));
        assert_eq!(paths.expand(Path::new("x")), Ok("/src/x".into()));
        assert!(paths.expand(Path::new("~bob/x")).is_err());
    }
}

//! What a stream names: paths that stay below the directory, and links that do.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use crate::Error;

/// The names of an entry's path, one a level; none for the directory itself.
pub(crate) fn names(path: &[u8]) -> Result<Vec<&OsStr>, Error> {
    let refuse = |why| {
        let path = Path::new(OsStr::from_bytes(path)).into();
        Err(Error::Unsafe { path, why })
    };
    if path.is_empty() {
        return refuse("has no name");
    }
    if path.starts_with(b"/") {
        return refuse("is absolute");
    }
    if path.contains(&0) {
        return refuse("has a NUL byte");
    }
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return refuse("has `..`"),
            name => names.push(OsStr::from_bytes(name)),
        }
    }
    Ok(names)
}

/// Whether a symbolic link `depth` directories below the root leads out of it by its text.
///
/// A text may climb at its start alone, where what it climbs from is known: after a name, which may be another link,
/// `..` can lead anywhere.
pub(crate) fn leads_out(text: &[u8], depth: usize) -> bool {
    let (mut climbed, mut named) = (0, false);
    for name in text.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if named => return true,
            b".." => climbed += 1,
            _ => named = true,
        }
    }
    text.starts_with(b"/") || climbed > depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/..",
            "../x",
            "a\0b",
        ] {
            assert!(names(path.as_bytes()).is_err(), "{path:?}");
        }
        for (path, expected) in [
            (".", &[][..]),
            ("./", &[]),
            ("./a//b/", &["a", "b"]),
            ("...", &["..."]),
            ("a/..b", &["a", "..b"]),
        ] {
            assert_eq!(names(path.as_bytes()).unwrap(), expected, "{path:?}");
        }
    }

    #[test]
    fn a_link_may_climb_to_the_root_and_not_beyond() {
        for (text, depth, out) in [
            ("file", 0, false),
            ("../file", 1, false),
            ("../file", 0, true),
            ("../../x", 2, false),
            ("../../../x", 2, true),
            ("./../x", 0, true),
            ("/etc", 5, true),
            // `a` may be a link to the root.
            ("a/../x", 5, true),
            ("", 0, false),
        ] {
            assert_eq!(
                leads_out(text.as_bytes(), depth),
                out,
                "{text:?} at {depth}"
            );
        }
    }
}

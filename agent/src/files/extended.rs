//! Extended attributes, by way of `rustix`: `nix` has none of these calls.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use nix::errno::Errno;
use rustix::{
    fs::{
        XattrFlags, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr, lsetxattr,
        removexattr, setxattr,
    },
    io,
};

use super::error::{FileError, Operation};

/// XATTR_SIZE_MAX and XATTR_LIST_MAX of include/uapi/linux/limits.h.
const MAX_VALUE: usize = 64 * 1024;

/// What an answer may hold: it must fit into one message.
const MAX_ANSWER: usize = 1024 * 1024;

/// A name with its namespace, and its value.
pub(crate) type ExtendedAttribute = (OsString, Vec<u8>);

/// The attributes of those names, or all if there are none; what is not there is left out.
pub(crate) fn extended_attributes(
    path: &Path,
    names: Vec<OsString>,
    follow: bool,
) -> Result<Vec<ExtendedAttribute>, FileError> {
    let at = |error: io::Errno| refused(error, Operation::GetExtendedAttributes, path);
    let names = if names.is_empty() {
        list(path, follow).map_err(at)?
    } else {
        names
    };
    let (mut attributes, mut bytes) = (Vec::new(), 0);
    let mut buffer = vec![0; MAX_VALUE];
    for name in names {
        let got = if follow {
            getxattr(path, &*name, &mut buffer[..])
        } else {
            lgetxattr(path, &*name, &mut buffer[..])
        };
        let value = match got {
            Ok(length) => buffer[..length].to_vec(),
            // Gone since it was listed, or never there.
            Err(io::Errno::NODATA) => continue,
            Err(error) => return Err(at(error)),
        };
        bytes += name.len() + value.len();
        if bytes > MAX_ANSWER {
            return Err(FileError::TooManyAttributes { path: path.into() });
        }
        attributes.push((name, value));
    }
    Ok(attributes)
}

/// Sets and then removes, in order, up to the first refusal.
pub(crate) fn set_extended_attributes(
    path: &Path,
    set: &[ExtendedAttribute],
    remove: &[OsString],
    follow: bool,
) -> Result<(), FileError> {
    let at = |error: io::Errno| refused(error, Operation::SetExtendedAttributes, path);
    for (name, value) in set {
        let flags = XattrFlags::empty();
        if follow {
            setxattr(path, &**name, value, flags)
        } else {
            lsetxattr(path, &**name, value, flags)
        }
        .map_err(at)?;
    }
    for name in remove {
        if follow {
            removexattr(path, &**name)
        } else {
            lremovexattr(path, &**name)
        }
        .map_err(at)?;
    }
    Ok(())
}

fn list(path: &Path, follow: bool) -> io::Result<Vec<OsString>> {
    let mut buffer = vec![0; MAX_VALUE];
    let length = if follow {
        listxattr(path, &mut buffer[..])
    } else {
        llistxattr(path, &mut buffer[..])
    }?;
    let names = buffer[..length].split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).into()).collect())
}

fn refused(error: io::Errno, operation: Operation, path: &Path) -> FileError {
    let errno = Errno::from_raw(error.raw_os_error());
    FileError::Refused {
        operation,
        path: path.into(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// What the kernel itself says of user attributes there, without us.
    fn supported(path: &Path) -> bool {
        let set = setxattr(path, "user.probe", b"1", XattrFlags::empty());
        set.is_ok() && removexattr(path, "user.probe").is_ok()
    }

    #[test]
    fn attributes_are_set_told_and_removed_or_refused_as_the_kernel_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let attribute = |name: &str, value: &[u8]| (OsString::from(name), value.to_vec());
        let set = [attribute("user.a", b"\0\xff"), attribute("user.b", b"")];
        if !supported(&path) {
            let error = set_extended_attributes(&path, &set, &[], true).unwrap_err();
            let expected = refused(
                io::Errno::OPNOTSUPP,
                Operation::SetExtendedAttributes,
                &path,
            );
            assert_eq!(error, expected);
            return;
        }
        set_extended_attributes(&path, &set, &[], true).unwrap();
        let mut all = extended_attributes(&path, Vec::new(), true).unwrap();
        all.retain(|(name, _)| name.as_bytes().starts_with(b"user."));
        all.sort();
        assert_eq!(all, set);
        let names = vec!["user.b".into(), "user.none".into()];
        let asked = extended_attributes(&path, names, true).unwrap();
        assert_eq!(asked, set[1..]);
        let gone = ["user.a".into()];
        set_extended_attributes(&path, &[], &gone, true).unwrap();
        let again = set_extended_attributes(&path, &[], &gone, true).unwrap_err();
        assert!(matches!(
            again,
            FileError::Refused {
                errno: Errno::ENODATA,
                ..
            }
        ));
    }

    #[test]
    fn a_link_that_is_not_followed_has_none_of_its_targets_attributes() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        symlink("missing", &link).unwrap();
        let names = vec!["user.a".into()];
        let own = extended_attributes(&link, names.clone(), false);
        // The kernel gives user attributes to files and directories alone; some file systems have none at all.
        match own {
            Ok(attributes) => assert!(attributes.is_empty()),
            Err(FileError::Refused { errno, .. }) => {
                assert!(matches!(errno, Errno::EPERM | Errno::EOPNOTSUPP));
            }
            Err(other) => panic!("{other:?}"),
        }
        let followed = extended_attributes(&link, names, true).unwrap_err();
        assert!(matches!(
            followed,
            FileError::Refused {
                errno: Errno::ENOENT,
                ..
            }
        ));
    }
}

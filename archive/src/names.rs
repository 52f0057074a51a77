//! The names in an open directory.

use std::{ffi::CString, mem};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
};

/// The next name but `.` and `..`, with its kind where the file system tells it.
pub fn next_name(directory: &mut Dir) -> Result<Option<(CString, Option<Type>)>, Errno> {
    // Dropping the iterator would rewind the directory; it owns nothing.
    let mut entries = mem::ManuallyDrop::new(directory.iter());
    for entry in entries.by_ref() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            return Ok(Some((name.into(), entry.file_type())));
        }
    }
    Ok(None)
}

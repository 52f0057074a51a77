//! Locks that tell who has a file, be it in another PID namespace or on another host: fcntl(2), "open file description
//! locks". One goes with the last descriptor of what was opened, also one that a program was started with.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::MachineError;

/// The whole file.
const ALL: libc::flock = libc::flock {
    l_type: libc::F_WRLCK as libc::c_short,
    l_whence: libc::SEEK_SET as libc::c_short,
    l_start: 0,
    l_len: 0,
    l_pid: 0,
};

/// Whether somebody holds a lock on any part of it. A file that is not there is nobody's.
pub(crate) fn is_locked(path: &Path) -> Result<bool, MachineError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(MachineError::file("open", path))?,
    };
    // The kernel answers with a lock that would be in the way of this one, or with none.
    let mut lock = ALL;
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(io::Error::from);
    asked.map_err(MachineError::file("look for locks on", path))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Of a file that is open for writing. An error if somebody has it.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&ALL)).map_err(io::Error::from)?;
    Ok(())
}

//! What the kernel itself answers: ordinary system calls on a list of paths, by whichever user runs this. Static, built by
//! tests/build.rs, and run in the guest beside the agent, by a tool of the guest's own that changes the user.
//!
//! Each line of stdin is `OPERATION PATH`; each line of stdout the errno, 0 for a success.

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    fs::{File, OpenOptions},
    io::{self, BufRead, Read, Write},
    os::unix::fs::OpenOptionsExt,
    ptr,
};

unsafe extern "C" {
    fn umask(mask: c_uint) -> c_uint;
    fn getuid() -> c_uint;
    fn getgid() -> c_uint;
    fn opendir(path: *const c_char) -> *mut c_void;
    fn closedir(folder: *mut c_void) -> c_int;
    fn mkdir(path: *const c_char, mode: c_uint) -> c_int;
    fn rmdir(path: *const c_char) -> c_int;
    fn unlink(path: *const c_char) -> c_int;
    fn rename(from: *const c_char, to: *const c_char) -> c_int;
    fn chmod(path: *const c_char, mode: c_uint) -> c_int;
    fn chown(path: *const c_char, uid: c_uint, gid: c_uint) -> c_int;
    fn lchown(path: *const c_char, uid: c_uint, gid: c_uint) -> c_int;
    fn truncate(path: *const c_char, size: i64) -> c_int;
    fn link(existing: *const c_char, path: *const c_char) -> c_int;
    fn symlink(text: *const c_char, path: *const c_char) -> c_int;
    fn readlink(path: *const c_char, text: *mut c_char, size: usize) -> isize;
    fn utimensat(at: c_int, path: *const c_char, times: *const [i64; 4], flags: c_int) -> c_int;
    fn listxattr(path: *const c_char, names: *mut c_char, size: usize) -> isize;
    fn setxattr(
        path: *const c_char,
        name: *const c_char,
        value: *const c_void,
        size: usize,
        flags: c_int,
    ) -> c_int;
    fn statvfs(path: *const c_char, space: *mut [u64; 32]) -> c_int;
}

const AT_FDCWD: c_int = -100;
const O_NONBLOCK: i32 = 0o4000;

fn main() -> io::Result<()> {
    unsafe { umask(0o022) };
    let mut answers = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (operation, path) = line.split_once(' ').expect("OPERATION PATH");
        let errno = match perform(operation, path) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().expect("the kernel's own error"),
        };
        writeln!(answers, "{errno}")?;
    }
    answers.flush()
}

fn perform(operation: &str, path: &str) -> io::Result<()> {
    let name = text(path);
    let name = name.as_ptr();
    let beside = |ending: &str| text(&format!("{path}{ending}"));
    let mut open = OpenOptions::new();
    open.custom_flags(O_NONBLOCK);
    match operation {
        "read" => open.read(true).open(path)?.read(&mut [0; 16]).map(drop),
        "truncate" => {
            open.write(true).create(true).truncate(true).open(path)?.write_all(b"changed")
        }
        "append" => open.append(true).create(true).open(path)?.write_all(b"more"),
        "at" => open.write(true).create(true).truncate(false).open(path)?.write_all(b"part"),
        "create" => open.write(true).create_new(true).open(path)?.write_all(b"new"),
        "stat" => std::fs::metadata(path).map(drop),
        "lstat" => std::fs::symlink_metadata(path).map(drop),
        "list" => {
            let folder = unsafe { opendir(name) };
            if folder.is_null() {
                return Err(io::Error::last_os_error());
            }
            unsafe { closedir(folder) };
            Ok(())
        }
        "mkdir" => told(unsafe { mkdir(name, 0o777) }),
        "remove" => {
            // As rm -d: the kernel says which of the two it is.
            if std::fs::symlink_metadata(path)?.is_dir() {
                told(unsafe { rmdir(name) })
            } else {
                told(unsafe { unlink(name) })
            }
        }
        "rename" => told(unsafe { rename(name, beside(".new").as_ptr()) }),
        "chmod" => told(unsafe { chmod(name, 0o4755) }),
        "chown" => told(unsafe { chown(name, getuid(), u32::MAX) }),
        "lchown" => told(unsafe { lchown(name, getuid(), u32::MAX) }),
        "chgrp" => told(unsafe { chown(name, u32::MAX, getgid()) }),
        "cut" => told(unsafe { truncate(name, 1) }),
        "link" => told(unsafe { link(name, beside(".hard").as_ptr()) }),
        "symlink" => told(unsafe { symlink(text("/etc/passwd").as_ptr(), beside(".soft").as_ptr()) }),
        "readlink" => {
            let mut target = [0; 4096];
            told(unsafe { readlink(name, target.as_mut_ptr(), target.len()) } as c_int)
        }
        "times" => told(unsafe { utimensat(AT_FDCWD, name, &[1, 2, 3, 4], 0) }),
        "attributes" => told(unsafe { listxattr(name, ptr::null_mut(), 0) } as c_int),
        "attribute" => told(unsafe {
            setxattr(name, c"user.corpus".as_ptr(), b"x".as_ptr().cast(), 1, 0)
        }),
        "space" => told(unsafe { statvfs(name, &mut [0; 32]) }),
        "digest" => File::open(path)?.read(&mut [0; 16]).map(drop),
        other => panic!("no operation {other}"),
    }
}

fn text(path: &str) -> CString {
    CString::new(path).expect("no NUL in a line")
}

fn told(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

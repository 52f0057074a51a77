//! Whose a socket is: the process that has it open, looked for through /proc as far as this user may see it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) pid: i32,
    /// At most 15 bytes.
    pub(crate) program: Vec<u8>,
}

/// The lowest process of each of these sockets. What ends meanwhile, or is not for this user to see, is not there.
pub(super) fn find(inodes: &HashSet<u64>) -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    for pid in processes() {
        if owners.len() == inodes.len() {
            break;
        }
        let folder = format!("/proc/{pid}");
        let sockets = sockets(Path::new(&folder));
        let mut wanted = sockets
            .filter(|inode| inodes.contains(inode) && !owners.contains_key(inode))
            .peekable();
        if wanted.peek().is_none() {
            continue;
        }
        let wanted: Vec<u64> = wanted.collect();
        if let Some(owner) = describe(pid, Path::new(&folder)) {
            owners.extend(wanted.into_iter().map(|inode| (inode, owner.clone())));
        }
    }
    owners
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut pids: Vec<i32> = entries.filter_map(pid).collect();
    pids.sort_unstable();
    pids
}

/// The inodes of the sockets among a process's descriptors: each is a link to `socket:[INODE]`.
fn sockets(folder: &Path) -> impl Iterator<Item = u64> + use<> {
    let descriptors = fs::read_dir(folder.join("fd")).into_iter().flatten();
    descriptors.flatten().filter_map(|descriptor| {
        let link = fs::read_link(descriptor.path()).ok()?;
        let inode = link.as_os_str().as_bytes().strip_prefix(b"socket:[")?;
        std::str::from_utf8(inode.strip_suffix(b"]")?)
            .ok()?
            .parse()
            .ok()
    })
}

fn describe(pid: i32, folder: &Path) -> Option<Owner> {
    let program = fs::read(folder.join("comm")).ok()?;
    Some(Owner {
        pid,
        program: program.strip_suffix(b"\n").unwrap_or(&program).into(),
    })
}

//! A tar stream that is unpacked below a directory: nothing comes to be outside of it, and what is held is bounded.

#![no_main]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use guestline_archive::{OutsideLinks, Root, UnpackOptions, unpack};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;

/// An extended header of 256 KiB, twice, and what is written at once, with room.
const MEMORY: usize = 4 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// In memory where that is possible: each input makes a tree.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder")
});

fuzz_target!(|bytes: &[u8]| {
    let (&first, rest) = match bytes.split_first() {
        Some(parts) => parts,
        None => return,
    };
    let stream = with_checksums(rest);
    let outside = FOLDER.path().join("outside");
    let root = FOLDER.path().join("root");
    make(&outside, &root).expect("a tree to begin with");
    let options = UnpackOptions {
        owners: false,
        outside_links: match first % 3 {
            0 => OutsideLinks::Refuse,
            1 => OutsideLinks::LeaveOut,
            _ => OutsideLinks::Keep,
        },
        mask: 0,
    };
    let opened = Root::open(&root, false).expect("the root");
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY);
    let unpacked = unpack(&opened, options, &stream[..], &mut ());
    let _ = ALLOCATOR.set_limit(usize::MAX);
    let _ = unpacked;
    assert_eq!(fs::read(outside.join("canary")).expect("the canary"), b"alive");
    assert_eq!(names(&outside), [outside.join("canary")], "made outside");
    assert_eq!(names(FOLDER.path()), [outside, root.clone()], "made beside");
    // A directory may have come without a right to read it; root does not care.
    fs::remove_dir_all(&root).expect("to clear up");
});

/// A directory with a way out of it, and something outside to be hurt.
fn make(outside: &PathBuf, root: &PathBuf) -> std::io::Result<()> {
    fs::create_dir_all(outside)?;
    fs::write(outside.join("canary"), "alive")?;
    let _ = fs::remove_dir_all(root);
    fs::create_dir(root)?;
    symlink("../outside", root.join("a"))
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    names.sort();
    names
}

/// Each block gets the checksum that it would have as a header: by chance none would be right.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut stream = bytes.to_vec();
    for block in stream.chunks_exact_mut(BLOCK) {
        if block.iter().all(|&byte| byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    stream
}

//! The file systems that stand on block devices, each once, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
};

use nix::{errno::Errno, fcntl::OFlag, libc, sys::stat};

use crate::sys::errno_of;

const MOUNTINFO: &str = "/proc/self/mountinfo";
const BTRFS: &str = "btrfs";

/// A mounted file system, held open.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) point: PathBuf,
    /// The block device, as mount(2) was given it.
    pub(super) source: PathBuf,
    /// Such as "ext4".
    pub(super) kind: String,
    pub(super) file: File,
}

/// Why they are not known.
#[derive(Debug)]
pub(super) struct MountError {
    pub(super) path: PathBuf,
    pub(super) errno: Errno,
}

/// A line that we care for.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// "MAJOR:MINOR": one per file system, however often it is mounted.
    device: String,
    point: PathBuf,
    source: PathBuf,
    kind: String,
}

/// Each once, at the first place where it is seen, in the order of mounting, and open for an ioctl. What lies hidden under
/// another mount at every place is left out, as nothing can write to it by a path.
pub(super) fn on_block_devices() -> Result<Vec<Mounted>, MountError> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    each_once(&mountinfo()?, flags, Some, Err)
}

/// What `look` finds at each of the same, open for looking at it only (O_PATH). One after another: while a mount is held open,
/// nobody can unmount it. What this user cannot reach is left out.
pub(super) fn look_at_each<T>(look: impl Fn(Mounted) -> Option<T>) -> Result<Vec<T>, MountError> {
    each_once(&mountinfo()?, OFlag::O_PATH, look, |_| Ok(()))
}

fn mountinfo() -> Result<Vec<u8>, MountError> {
    fs::read(MOUNTINFO).map_err(|error| MountError {
        path: MOUNTINFO.into(),
        errno: errno_of(&error),
    })
}

fn each_once<T>(
    text: &[u8],
    flags: OFlag,
    look: impl Fn(Mounted) -> Option<T>,
    unopened: impl Fn(MountError) -> Result<(), MountError>,
) -> Result<Vec<T>, MountError> {
    let (mut known, mut found) = (HashSet::new(), Vec::new());
    for line in text.split(|&byte| byte == b'\n').filter_map(parse) {
        if known.contains(&line.device) {
            continue;
        }
        match open(&line, flags) {
            Ok(Some(file)) => {
                known.insert(line.device);
                found.extend(look(Mounted {
                    point: line.point,
                    source: line.source,
                    kind: line.kind,
                    file,
                }));
            }
            Ok(None) => {}
            Err(error) => unopened(error)?,
        }
    }
    Ok(found)
}

/// `None`: another file system is at that path.
fn open(line: &Line, flags: OFlag) -> Result<Option<File>, MountError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(&line.point);
    let file = match opened.map_err(|error| errno_of(&error)) {
        Ok(file) => file,
        // The mount point was renamed or removed below another mount.
        Err(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => return Ok(None),
        Err(errno) => {
            return Err(MountError {
                path: line.point.clone(),
                errno,
            });
        }
    };
    let Ok(metadata) = file.metadata() else {
        return Ok(None);
    };
    // A bind mount can be of a device node, whose driver would get our ioctl.
    let kind = metadata.mode() & libc::S_IFMT;
    if kind != libc::S_IFDIR && kind != libc::S_IFREG {
        return Ok(None);
    }
    let (major, minor) = (stat::major(metadata.dev()), stat::minor(metadata.dev()));
    // Btrfs gives each of its subvolumes a number of its own.
    let same = line.kind == BTRFS || line.device == format!("{major}:{minor}");
    Ok(same.then_some(file))
}

/// `None` for a file system that stands on no block device.
fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?.to_owned();
    let point = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (rest.next()?, rest.next()?);
    let kind = String::from_utf8_lossy(kind).into_owned();
    // Major 0 is the kernel's for file systems without a device; btrfs has several.
    let is_on_devices = kind == BTRFS && source.starts_with(b"/dev/");
    if device.starts_with("0:") && !is_on_devices {
        return None;
    }
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    Some(Line {
        device,
        point: path(point),
        source: path(source),
        kind,
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_one_disk_at_the_first_place_where_it_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["first", "bound"] {
            fs::create_dir(at(name)).unwrap();
        }
        // Another file system is at the first point, and nothing at the second.
        let text = [
            format!("1 0 98:0 / {} rw - ext4 /dev/a rw", at("first")),
            format!("2 0 0:98 / {} rw - btrfs /dev/b rw", at("gone")),
            format!("3 0 0:98 / {} rw - btrfs /dev/b rw", at("first")),
            format!("4 0 0:98 /x {} rw - btrfs /dev/b rw", at("bound")),
        ]
        .join("\n");
        for flags in [OFlag::O_NONBLOCK, OFlag::O_PATH] {
            let found = each_once(text.as_bytes(), flags, Some, Err).unwrap();
            let [disk] = &found[..] else {
                panic!("{found:?}");
            };
            assert_eq!(disk.point, folder.path().join("first"));
            assert_eq!(disk.source.to_str(), Some("/dev/b"));
        }
    }

    #[test]
    fn what_cannot_be_opened_is_an_error_or_left_out_as_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let below = file.join("below").display().to_string();
        let text = format!("1 0 98:0 / {below} rw - ext4 /dev/a rw");
        let error = each_once(text.as_bytes(), OFlag::O_NONBLOCK, Some, Err).unwrap_err();
        assert_eq!(error.errno, Errno::ENOTDIR);
        let left = each_once(text.as_bytes(), OFlag::O_PATH, Some, |_| Ok(()));
        assert!(left.unwrap().is_empty());
    }

    #[test]
    fn none_is_held_open_while_the_next_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let points = ["first", "second", "third"].map(|name| folder.path().join(name));
        let line = |(at, point): (usize, &PathBuf)| {
            fs::create_dir(point).unwrap();
            let point = point.display();
            format!("{at} 0 0:{at} / {point} rw - btrfs /dev/{at} rw\n")
        };
        let text: String = points.iter().enumerate().map(line).collect();
        let open = || {
            let descriptors = fs::read_dir("/proc/self/fd").unwrap();
            let of = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
            of.filter(|path| path.starts_with(folder.path())).collect()
        };
        let look = |mounted: Mounted| -> Option<Vec<PathBuf>> {
            let open = open();
            drop(mounted);
            Some(open)
        };
        let found = each_once(text.as_bytes(), OFlag::O_PATH, look, Err).unwrap();
        assert_eq!(found, points.map(|point| vec![point]));
    }

    #[test]
    fn only_block_devices_count_and_names_are_as_they_are() {
        let ext4 = br"36 35 98:0 /mnt1 /mnt\040a\134b rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(
            parse(ext4),
            Some(Line {
                device: "98:0".into(),
                point: r"/mnt a\b".into(),
                source: "/dev/root".into(),
                kind: "ext4".into(),
            })
        );
        let btrfs = parse(b"1 2 0:30 / / rw - btrfs /dev/vda2 rw,subvol=/root").unwrap();
        assert_eq!(btrfs.kind, BTRFS);
        for other in [
            &b"22 27 0:21 / /proc rw,relatime - proc proc rw"[..],
            b"22 27 0:22 / /mnt rw - 9p /dev/share rw",
            b"",
            b"22 27",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}

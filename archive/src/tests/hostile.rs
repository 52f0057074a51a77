//! Streams that mean harm, and streams that end too early.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use tar::EntryType;
use tempfile::TempDir;

use super::unpack_into;
use crate::{
    entry::{Attributes, Time},
    write::{Head, end, head, pad},
    *,
};

#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn add(mut self, kind: EntryType, path: &str, link: &str, data: &str) -> Self {
        let attributes = Attributes {
            mode: 0o755,
            uid: Some(0),
            gid: Some(0),
            modified: Time {
                seconds: 1_000_000_000,
                nanoseconds: 5,
            },
        };
        let entry = Head {
            kind,
            path: path.as_bytes(),
            link: link.as_bytes(),
            attributes,
            stored: data.len() as u64,
            sparse: None,
        };
        head(&mut self.0, &entry).unwrap();
        self.0.extend_from_slice(data.as_bytes());
        pad(&mut self.0, data.len() as u64).unwrap();
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(EntryType::Regular, path, "", data)
    }

    fn link(self, path: &str, text: &str) -> Self {
        self.add(EntryType::Symlink, path, text, "")
    }

    fn end(mut self) -> Vec<u8> {
        end(&mut self.0).unwrap();
        self.0
    }
}

/// A folder to unpack into, beside one that must not be touched.
fn victim() -> (TempDir, PathBuf, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("in"), top.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    (top, inside, outside)
}

fn assert_untouched(outside: &Path) {
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
}

#[test]
fn what_would_leave_the_directory_is_refused_and_nothing_outside_is_touched() {
    let (_top, inside, outside) = victim();
    let absolute = outside.join("file").display().to_string();
    let device = |kind| Stream::default().add(kind, "device", "", "");
    for (what, stream) in [
        ("dots", Stream::default().file("../out/file", "evil")),
        (
            "dots later",
            Stream::default().file("a/../../out/file", "evil"),
        ),
        ("absolute", Stream::default().file(&absolute, "evil")),
        ("link out", Stream::default().link("l", "../out")),
        ("absolute link", Stream::default().link("l", &absolute)),
        (
            "link by a link",
            Stream::default()
                .link("a/b/l", "..")
                .link("m", "a/b/l/../../out"),
        ),
        (
            "hard link out",
            Stream::default().add(EntryType::Link, "h", "../out/file", ""),
        ),
        (
            "absolute hard link",
            Stream::default().add(EntryType::Link, "h", &absolute, ""),
        ),
        ("device", device(EntryType::Char)),
        ("block device", device(EntryType::Block)),
        ("fifo", device(EntryType::Fifo)),
        ("the directory as a file", Stream::default().file("./", "x")),
    ] {
        let result = unpack_into(&inside, &stream.end(), OutsideLinks::Refuse);
        assert!(
            matches!(result, Err(Error::Unsafe { .. })),
            "{what}: {result:?}"
        );
        assert_untouched(&outside);
    }
    assert!(!inside.join("device").exists());
}

#[test]
fn no_link_is_written_through_whoever_made_it() {
    let (_top, inside, outside) = victim();
    // Theirs, made by the stream itself.
    for stream in [
        Stream::default().link("l", "../out").file("l/file", "evil"),
        Stream::default()
            .link("l", "../out")
            .add(EntryType::Directory, "l/", "", "")
            .file("l/file", "evil"),
        Stream::default()
            .link("l", "../out")
            .add(EntryType::Link, "h", "l/file", "")
            .file("h", "evil"),
    ] {
        let result = unpack_into(&inside, &stream.end(), OutsideLinks::Keep);
        assert!(matches!(result, Err(Error::Unsafe { .. })), "{result:?}");
        assert_untouched(&outside);
    }
    // Ours, that was there before.
    symlink(&outside, inside.join("mine")).unwrap();
    let stream = Stream::default().file("mine/file", "evil").end();
    assert!(unpack_into(&inside, &stream, OutsideLinks::Keep).is_err());
    assert_untouched(&outside);
    // A file of the link's name takes its place, and its target keeps what it has.
    let stream = Stream::default()
        .link("f", "../out/file")
        .file("f", "new")
        .end();
    unpack_into(&inside, &stream, OutsideLinks::Keep).unwrap();
    assert_untouched(&outside);
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"new");
}

#[test]
fn a_hard_link_to_a_link_is_judged_where_it_is_made() {
    let (_top, inside, outside) = victim();
    let stream = Stream::default()
        .link("a/b/l", "../../x")
        .add(EntryType::Link, "a/same", "a/b/l", "")
        .end();
    let result = unpack_into(&inside, &stream, OutsideLinks::Refuse);
    assert!(matches!(result, Err(Error::Unsafe { .. })), "{result:?}");
    let stream = Stream::default()
        .link("a/b/l", "../../x")
        .add(EntryType::Link, "a/b/same", "a/b/l", "")
        .end();
    unpack_into(&inside, &stream, OutsideLinks::Refuse).unwrap();
    assert_eq!(
        fs::read_link(inside.join("a/b/same")).unwrap(),
        Path::new("../../x")
    );
    assert_untouched(&outside);
}

/// Swaps a directory for a link while the stream is below it.
struct Swap {
    inside: PathBuf,
    outside: PathBuf,
}

impl Observer for Swap {
    fn file(&mut self, path: &Path, _size: u64) {
        if path == Path::new("sub/one") {
            fs::rename(self.inside.join("sub"), self.inside.join("moved")).unwrap();
            symlink(&self.outside, self.inside.join("sub")).unwrap();
        }
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_meanwhile_leads_nowhere() {
    let (_top, inside, outside) = victim();
    let mut swap = Swap {
        inside: inside.clone(),
        outside: outside.clone(),
    };
    let stream = Stream::default()
        .file("sub/one", "1")
        .file("sub/file", "evil")
        .file("other", "2")
        .file("sub/file", "evil")
        .end();
    let root = Root::open(&inside, false).unwrap();
    let result = unpack(&root, UnpackOptions::default(), &stream[..], &mut swap);
    assert!(matches!(result, Err(Error::Unsafe { .. })), "{result:?}");
    assert_untouched(&outside);
    assert_eq!(fs::read(inside.join("moved/one")).unwrap(), b"1");
}

#[test]
fn a_cut_stream_leaves_whole_files_and_no_trace_of_the_one_under_way() {
    let stream = Stream::default()
        .file("one", "whole")
        .file("two", &"x".repeat(5000))
        .end();
    // Within a header, within data, at the end of the data, and before the mark of the end.
    let whole = stream.len();
    for cut in [100, 1600, 3000, whole - 2 * 512, whole - 1024 - 3] {
        let (_top, inside, _) = victim();
        let result = unpack_into(&inside, &stream[..cut], OutsideLinks::Refuse);
        assert!(matches!(result, Err(Error::CutShort)), "{cut}: {result:?}");
        for entry in fs::read_dir(&inside).unwrap() {
            let path = entry.unwrap().path();
            let size = fs::metadata(&path).unwrap().len();
            assert!(matches!(
                (path.file_name().unwrap().as_bytes(), size),
                (b"one", 5) | (b"two", 5000)
            ));
        }
    }
}

#[test]
fn links_that_lead_out_are_left_out_or_kept_where_that_is_asked() {
    #[derive(Default)]
    struct Told(Vec<PathBuf>);
    impl Observer for Told {
        fn left_out(&mut self, path: &Path, why: LeftOut) {
            assert_eq!(why, LeftOut::OutsideLink("/usr/bin/python3".into()));
            self.0.push(path.into());
        }
    }
    let (_top, inside, _) = victim();
    let stream = Stream::default()
        .link("bin/python", "/usr/bin/python3")
        .file("bin/pip", "x")
        .end();
    let mut told = Told::default();
    let options = UnpackOptions {
        outside_links: OutsideLinks::LeaveOut,
        ..UnpackOptions::default()
    };
    let root = Root::open(&inside, false).unwrap();
    let unpacked = unpack(&root, options, &stream[..], &mut told).unwrap();
    assert_eq!((unpacked.entries, told.0), (1, vec!["bin/python".into()]));
    unpack_into(&inside, &stream, OutsideLinks::Keep).unwrap();
    assert!(inside.join("bin/python").is_symlink());
}

#[test]
fn trees_and_streams_that_are_too_deep_are_refused() {
    let (_top, inside, _) = victim();
    let deep = |levels| {
        Stream::default()
            .file(&("d/".repeat(levels) + "f"), "x")
            .end()
    };
    unpack_into(&inside, &deep(MAX_DEPTH), OutsideLinks::Refuse).unwrap();
    let result = unpack_into(&inside, &deep(MAX_DEPTH + 1), OutsideLinks::Refuse);
    assert!(matches!(result, Err(Error::TooDeep { .. })), "{result:?}");
}

/// Any bytes: changed here and there, with the headers' checksums made right again.
#[test]
fn no_stream_whatever_its_bytes_touches_what_is_outside() {
    let stream = Stream::default()
        .add(EntryType::Directory, "sub/", "", "")
        .link("sub/link", "../file")
        .file("sub/file", &"data".repeat(200))
        .add(EntryType::Link, "sub/same", "sub/file", "")
        .file("file", "x")
        .end();
    let headers: Vec<usize> = (0..stream.len() / BLOCK)
        .map(|block| block * BLOCK)
        .filter(|&at| stream[at + 257..].starts_with(b"ustar"))
        .collect();
    let interesting = b"./\0\xff0123456789 LKxgS=\n-";
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let (_top, inside, outside) = victim();
    let mut unpacked = 0;
    for _ in 0..400 {
        let mut stream = stream.clone();
        for _ in 0..=random(4) {
            let at = headers[random(headers.len())];
            let byte = interesting[random(interesting.len())];
            stream[at + random(2 * BLOCK)] = byte;
        }
        for &at in &headers {
            let mut header = tar::Header::new_old();
            let block = &mut stream[at..at + BLOCK];
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let result = unpack_into(&inside, &stream, OutsideLinks::Refuse);
        unpacked += usize::from(result.is_ok());
        assert_untouched(&outside);
    }
    // Most changes are harmless, and some are not.
    assert!((20..390).contains(&unpacked), "{unpacked}");
}

//! Trees that go through a stream and come back.

mod hostile;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use crate::*;

/// A hostile or ordinary stream, written header by header.
fn unpack_into(path: &Path, stream: &[u8], links: OutsideLinks) -> Result<Unpacked, Error> {
    let options = UnpackOptions {
        outside_links: links,
        ..UnpackOptions::default()
    };
    unpack(&Root::open(path, false)?, options, stream, &mut ())
}

fn pack_all(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    pack(path, PackOptions::default(), &mut stream, &mut ()).unwrap();
    stream
}

/// What a tree is: every path with what it is, its mode, time, content and the names of the same file.
fn describe(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let content = if stat.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else if stat.is_dir() {
                folders.push(path.clone());
                String::new()
            } else {
                format!("{:?} x{}", fs::read(&path).unwrap(), stat.nlink())
            };
            all.push(format!(
                "{:?} {:o} {}.{} {content}",
                path.strip_prefix(root).unwrap(),
                stat.mode(),
                stat.mtime(),
                stat.mtime_nsec()
            ));
        }
    }
    all.sort();
    all
}

/// One of everything that a stream carries.
fn make_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("sub/deep")).unwrap();
    fs::create_dir(at("shut")).unwrap();
    fs::write(at("sub/file"), "content").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("shut/in it"), "x").unwrap();
    fs::hard_link(at("sub/file"), at("sub/deep/same")).unwrap();
    symlink("../file", at("sub/deep/up")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let odd = OsStr::from_bytes(b"sub/\xff line\nfeed");
    fs::write(root.join(odd), "odd").unwrap();
    let long: PathBuf = ["long".repeat(50), "name".repeat(50)].iter().collect();
    fs::create_dir(root.join(long.parent().unwrap())).unwrap();
    fs::write(root.join(&long), "long").unwrap();
    symlink(&long, at("to-long")).unwrap();
    let old = SystemTime::UNIX_EPOCH - Duration::new(5, 123_456_789);
    let times = fs::FileTimes::new().set_modified(old);
    File::open(at("empty")).unwrap().set_times(times).unwrap();
    fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("shut"), fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let top = tempfile::tempdir().unwrap();
    let (from, to) = (top.path().join("from"), top.path().join("a/b/to"));
    make_tree(&from);
    let stream = pack_all(&from);
    let root = Root::open(&to, true).unwrap();
    let unpacked = unpack(&root, UnpackOptions::default(), &stream[..], &mut ()).unwrap();
    assert_eq!(describe(&to), describe(&from));
    assert_eq!(unpacked.bytes, 15);
    let top_of = |path: &Path| {
        let stat = fs::metadata(path).unwrap();
        (stat.mode(), stat.mtime(), stat.mtime_nsec())
    };
    assert_eq!(top_of(&to), top_of(&from));
    // Over what is there, a directory without the write bit too.
    unpack_into(&to, &stream, OutsideLinks::Refuse).unwrap();
    assert_eq!(describe(&to), describe(&from));
}

#[test]
fn what_is_made_gets_no_bit_of_the_mask() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    let mode = |path: &str| fs::metadata(at(path)).unwrap().mode() & 0o7777;
    let modes = [("", 0o775), ("/folder", 0o1777), ("/file", 0o664)];
    fs::create_dir_all(at("from/folder")).unwrap();
    fs::write(at("from/file"), "x").unwrap();
    for (name, mode) in modes {
        let path = at(&format!("from{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let stream = pack_all(&at("from"));
    for (to, mask) in [("exact", 0), ("masked", 0o7027), ("closed", 0o7077)] {
        let root = Root::open(&at(to), true).unwrap();
        let options = UnpackOptions {
            mask,
            ..UnpackOptions::default()
        };
        // The second time over what is there.
        for _ in 0..2 {
            unpack(&root, options, &stream[..], &mut ()).unwrap();
            for (name, sent) in modes {
                let path = format!("{to}{name}");
                assert_eq!(mode(&path), sent & !mask, "{path}");
            }
        }
    }
}

#[test]
fn gnu_tar_reads_what_is_packed_and_writes_what_is_unpacked() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    make_tree(&at("from"));
    let holes = File::create(at("from/holes")).unwrap();
    holes.set_len(3 << 20).unwrap();
    holes.write_all_at(b"middle", 1 << 20).unwrap();
    fs::create_dir(at("theirs")).unwrap();
    let mut tar = Command::new("tar")
        .args(["-xpf", "-", "-C"])
        .arg(at("theirs"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    stdin.write_all(&pack_all(&at("from"))).unwrap();
    drop(stdin);
    assert!(tar.wait().unwrap().success());
    assert_eq!(describe(&at("theirs")), describe(&at("from")));
    for format in ["--format=gnu", "--format=posix"] {
        // Sparse files of GNU's own format are not read.
        let sparse = (format == "--format=posix").then_some("--sparse");
        let mut tar = Command::new("tar");
        tar.args([format, "-c"]).args(sparse).arg("-C");
        let output = tar.arg(at("from")).arg(".").output().unwrap();
        assert!(output.status.success());
        let ours = at(format);
        fs::create_dir(&ours).unwrap();
        unpack_into(&ours, &output.stdout, OutsideLinks::Refuse).unwrap();
        let (theirs, ours) = (describe(&at("from")), describe(&ours));
        match format {
            "--format=posix" => assert_eq!(ours, theirs),
            // Its times are whole seconds.
            _ => assert_eq!(ours.len(), theirs.len()),
        }
    }
}

#[test]
fn holes_stay_holes() {
    let top = tempfile::tempdir().unwrap();
    let (from, to) = (top.path().join("from"), top.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for (name, size, data) in [("hole", 1 << 30, None), ("ends", 1 << 26, Some(1 << 25))] {
        let file = File::create(from.join(name)).unwrap();
        file.set_len(size).unwrap();
        if let Some(at) = data {
            file.write_all_at(b"data", at).unwrap();
        }
    }
    let stream = pack_all(&from);
    unpack_into(&to, &stream, OutsideLinks::Refuse).unwrap();
    // Only a file system without holes would have made the stream large.
    let sparse = fs::metadata(from.join("hole")).unwrap().blocks() < 1024;
    assert_eq!(stream.len() < 1 << 20, sparse, "{}", stream.len());
    for name in ["hole", "ends"] {
        let stat = |root: &Path| fs::metadata(root.join(name)).unwrap();
        assert_eq!(stat(&to).len(), stat(&from).len());
        assert!(stat(&to).blocks() <= stat(&from).blocks() + 16, "{name}");
    }
    assert!(fs::read(to.join("ends")).unwrap() == fs::read(from.join("ends")).unwrap());
}

#[test]
fn set_id_bits_come_with_their_owner_alone() {
    let top = tempfile::tempdir().unwrap();
    let (from, to) = (top.path().join("from"), top.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("tool"), "x").unwrap();
    fs::set_permissions(from.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    let stream = pack_all(&from);
    for (owners, mode) in [(false, 0o755), (true, 0o4755)] {
        let options = UnpackOptions {
            owners,
            ..UnpackOptions::default()
        };
        let root = Root::open(&to, true).unwrap();
        unpack(&root, options, &stream[..], &mut ()).unwrap();
        let got = fs::metadata(to.join("tool")).unwrap().mode() & 0o7777;
        assert_eq!(got, mode);
    }
}

#[test]
fn a_single_file_has_its_own_name_and_special_files_are_left_out() {
    #[derive(Default)]
    struct Told(Vec<PathBuf>);
    impl Observer for Told {
        fn left_out(&mut self, path: &Path, _why: LeftOut) {
            self.0.push(path.into());
        }
    }
    let top = tempfile::tempdir().unwrap();
    let inside = top.path().join("in");
    fs::create_dir(&inside).unwrap();
    fs::write(top.path().join("file"), "kept").unwrap();
    let stream = pack_all(&top.path().join("file"));
    unpack_into(&inside, &stream, OutsideLinks::Refuse).unwrap();
    assert_eq!(fs::read(inside.join("file")).unwrap(), b"kept");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&inside.join("fifo"), mode).unwrap();
    let (mut stream, mut told) = (Vec::new(), Told::default());
    let packed = pack(&inside, PackOptions::default(), &mut stream, &mut told).unwrap();
    assert_eq!((packed.entries, told.0), (2, vec!["fifo".into()]));
    let result = pack(
        &inside.join("fifo"),
        PackOptions::default(),
        &mut stream,
        &mut (),
    );
    assert!(matches!(result, Err(Error::SpecialFile { .. })));
}

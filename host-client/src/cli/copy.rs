//! `guestline cp`: which side is which, and how trees are walked.
//!
//! What the guest lists is a stranger's: a name that would leave the target is refused, and symbolic links are made only
//! after all files, so that none of them can redirect one.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};

use guestline_client::{FileType, SetAttributes, Vm};

use super::{
    Outcome,
    failure::{Failure, OnHost, Trying},
    output::printable_path,
    progress::Progress,
    transfer::Transfer,
};

/// The deepest that the protocol lists.
const DEEPEST: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also directories, with all below them; permission bits are kept
    #[arg(short, long)]
    recursive: bool,
    /// Print the SHA-256 of each file's bytes as they were sent or received
    #[arg(long)]
    checksum: bool,
    /// What to copy; `:PATH` is in the guest, and `:` its user's home
    from: PathBuf,
    /// Where to; one of the two is in the guest
    to: PathBuf,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let Arguments {
        recursive,
        checksum,
        from,
        to,
    } = arguments;
    let transfer = Transfer {
        vm,
        progress: Progress::new(),
        checksum,
    };
    match (in_guest(&from), in_guest(&to)) {
        (None, Some(to)) => upload(&transfer, &from, to, recursive).await?,
        (Some(from), None) => download(&transfer, &from, to, recursive).await?,
        (None, None) | (Some(_), Some(_)) => {
            let text =
                "cp copies between this host and the guest: write exactly one of the two as :PATH";
            Failure::Told(text.into()).tell();
            return Ok(2);
        }
    }
    Ok(0)
}

fn in_guest(path: &Path) -> Option<PathBuf> {
    let path = path.as_os_str().as_bytes().strip_prefix(b":")?;
    let path = if path.is_empty() {
        b".".as_slice()
    } else {
        path
    };
    Some(OsStr::from_bytes(path).into())
}

/// As cp(1): into a directory that is there, else as that name.
fn target(to: PathBuf, is_dir: bool, from: &Path) -> PathBuf {
    match from.file_name() {
        Some(name) if is_dir => to.join(name),
        _ => to,
    }
}

fn need_recursive(path: &Path, recursive: bool) -> Result<(), Failure> {
    if recursive {
        return Ok(());
    }
    let path = printable_path(path);
    Err(Failure::Told(format!(
        "cannot copy {path}: it is a directory; say -r to copy all of it"
    )))
}

async fn upload(
    transfer: &Transfer<'_>,
    from: &Path,
    to: PathBuf,
    recursive: bool,
) -> Result<(), Failure> {
    let (vm, files) = (transfer.vm, transfer.vm.files());
    let is_dir = match files.stat(&to).await {
        Err(error) if error.is_not_found() => false,
        found => found.trying("stat", &to, vm)?.is_dir(),
    };
    let to = target(to, is_dir, from);
    if !fs::metadata(from).on_host("read", from)?.is_dir() {
        return transfer.upload(from, &to).await;
    }
    need_recursive(from, recursive)?;
    let (mut links, mut modes) = (Vec::new(), Vec::new());
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(io::Error::from).on_host("read", from)?;
        let relative = entry.path().strip_prefix(from).unwrap_or(entry.path());
        let to = if relative.as_os_str().is_empty() {
            to.clone()
        } else {
            to.join(relative)
        };
        // The root itself may be a symbolic link, and is followed as its metadata was above.
        if entry.file_type().is_dir() || entry.depth() == 0 {
            files
                .create_dir_all(&to)
                .await
                .trying("make the directory", &to, vm)?;
            let metadata = fs::metadata(entry.path()).on_host("read", entry.path())?;
            modes.push((to, metadata.permissions().mode() & 0o777));
        } else if entry.path_is_symlink() {
            links.push((
                fs::read_link(entry.path()).on_host("read", entry.path())?,
                to,
            ));
        } else {
            transfer.upload(entry.path(), &to).await?;
        }
    }
    for (text, path) in links {
        files
            .remove(&path, false, true)
            .await
            .trying("replace", &path, vm)?;
        files
            .symlink(&text, &path)
            .await
            .trying("make the link", &path, vm)?;
    }
    // Deepest first: a directory without the write bit takes nothing any more.
    for (path, mode) in modes.into_iter().rev() {
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        files
            .set_attributes(&path, set)
            .await
            .trying("set the mode of", &path, vm)?;
    }
    Ok(())
}

async fn download(
    transfer: &Transfer<'_>,
    from: &Path,
    to: PathBuf,
    recursive: bool,
) -> Result<(), Failure> {
    let vm = transfer.vm;
    let top = vm.files().stat(from).await.trying("read", from, vm)?;
    let to = target(to.clone(), to.is_dir(), from);
    if !top.is_dir() {
        return transfer.download(from, &to).await;
    }
    need_recursive(from, recursive)?;
    let mut listing = vm
        .files()
        .list(from, DEEPEST)
        .await
        .trying("list", from, vm)?;
    fs::create_dir_all(&to).on_host("make", &to)?;
    let (mut links, mut modes) = (Vec::new(), vec![(to.clone(), top.mode)]);
    while let Some(entry) = listing.next().await.trying("list", from, vm)? {
        let guest = from.join(&entry.path);
        if let Some(error) = entry.error {
            return Err(error).trying("read", &guest, vm);
        }
        let host = to.join(inside(&entry.path)?);
        match entry.file_type {
            FileType::Directory => {
                make_dir(&host)?;
                modes.push((host, entry.metadata.map_or(0o755, |metadata| metadata.mode)));
            }
            FileType::Symlink => links.push((
                vm.files()
                    .read_link(&guest)
                    .await
                    .trying("read", &guest, vm)?,
                host,
            )),
            FileType::Regular => transfer.download(&guest, &host).await?,
            _ => eprintln!(
                "guestline: left out {}: neither file, directory nor link",
                printable_path(&guest)
            ),
        }
    }
    for (text, path) in links {
        remove_link(&path)?;
        symlink(text, &path).on_host("make the link", &path)?;
    }
    for (path, mode) in modes.into_iter().rev() {
        let permissions = fs::Permissions::from_mode(mode & 0o777);
        fs::set_permissions(&path, permissions).on_host("set the mode of", &path)?;
    }
    Ok(())
}

/// A link of an earlier copy is replaced, so that copying twice works; never followed.
fn remove_link(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_dir() => fs::remove_file(path).on_host("replace", path),
        _ => Ok(()),
    }
}

/// Makes a directory that is none yet. A symbolic link that lies there would lead out of the target.
fn make_dir(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path).on_host("read", path)?.is_dir() {
                true => Ok(()),
                false => Err(error).on_host("make the directory", path),
            }
        }
        made => made.on_host("make the directory", path),
    }
}

/// The path, if it stays below where it is joined to.
fn inside(path: &Path) -> Result<&Path, Failure> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if plain && !path.as_os_str().is_empty() {
        return Ok(path);
    }
    let path = printable_path(path);
    Err(Failure::Told(format!(
        "the guest lists the name {path}, which would leave the target; nothing of it was written"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_target_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../x", ".."] {
            assert!(inside(Path::new(name)).is_err(), "{name}");
        }
        assert!(inside(Path::new("a/b")).is_ok());
    }

    #[test]
    fn a_colon_marks_the_guests_side() {
        assert_eq!(in_guest(Path::new(":/etc")), Some("/etc".into()));
        assert_eq!(in_guest(Path::new(":")), Some(".".into()));
        assert_eq!(in_guest(Path::new("./:x")), None);
    }
}

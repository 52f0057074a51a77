//! `guestline cp`: which side is which, and whether it is a file or a tree.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use guestline_client::{CopyOptions, OutsideLinks, PushOptions, Vm};

use super::{
    Outcome,
    failure::{Failure, OnHost, Trying},
    output::printable_path,
    progress::Progress,
    transfer::Transfer,
    tree::Watch,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also copy directories, with all below them: permission bits (here, less the umask), times, links and holes are kept
    #[arg(short, long)]
    recursive: bool,
    /// From the guest, also make symbolic links that lead out of the copied directory; otherwise they are left out
    #[arg(long, requires = "recursive")]
    outside_links: bool,
    /// Go on with a copy of a file that was cut: what the target has stays if its SHA-256 is that of the source's
    /// beginning. Writes in place, so that this one can be resumed too; without it, a cut copy leaves nothing
    #[arg(long, conflicts_with = "recursive")]
    resume: bool,
    /// Print the SHA-256 of each file's bytes as they were sent or received
    #[arg(long)]
    checksum: bool,
    /// What to copy; `:PATH` is in the guest, and `:` its user's home
    from: PathBuf,
    /// Where to; one of the two is in the guest, or both are
    to: PathBuf,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let Arguments {
        recursive,
        outside_links,
        resume,
        checksum,
        from,
        to,
    } = arguments;
    let outside_links = match outside_links {
        true => OutsideLinks::Keep,
        false => OutsideLinks::LeaveOut,
    };
    let transfer = Transfer {
        vm,
        progress: Arc::new(Progress::new()),
        checksum,
        resume,
    };
    match (in_guest(&from), in_guest(&to)) {
        (None, Some(to)) => upload(&transfer, &from, to, recursive).await?,
        (Some(from), None) => download(&transfer, &from, to, recursive, outside_links).await?,
        (Some(from), Some(to)) if !(resume || checksum) => {
            within(vm, &from, to, recursive).await?;
        }
        (Some(_), Some(_)) => {
            let text = "--resume and --checksum are for copies between this host and the guest";
            Failure::Told(text.into()).tell();
            return Ok(2);
        }
        (None, None) => {
            let text = "cp copies from or to the guest: write one of the two, or both, as :PATH";
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

/// The same for one in the guest.
async fn guests_target(vm: &Vm, to: PathBuf, from: &Path) -> Result<PathBuf, Failure> {
    let is_dir = match vm.files().stat(&to).await {
        Err(error) if error.is_not_found() => false,
        found => found.trying("stat", &to, vm)?.is_dir(),
    };
    Ok(target(to, is_dir, from))
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

/// As cp(1): a tree is made in a directory that is there.
fn no_parent(to: &Path, parent: &Path, place: &str, make: &str) -> Failure {
    let (to, parent) = (printable_path(to), printable_path(parent));
    Failure::Told(format!(
        "cannot copy to {to}: there is no directory {parent} {place}; make it first: {make} {parent}"
    ))
}

/// `None` where it is the directory that we are in, or the root.
fn parent(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
}

async fn upload(
    transfer: &Transfer<'_>,
    from: &Path,
    to: PathBuf,
    recursive: bool,
) -> Result<(), Failure> {
    let (vm, files) = (transfer.vm, transfer.vm.files());
    let to = guests_target(vm, to, from).await?;
    if !fs::metadata(from).on_host("read", from)?.is_dir() {
        return match transfer.resume {
            true => transfer.resume_upload(from, &to).await,
            false => transfer.upload(from, &to).await,
        };
    }
    need_recursive(from, recursive)?;
    if let Some(parent) = parent(&to) {
        match files.stat(parent).await {
            Err(error) if error.is_not_found() => {
                return Err(no_parent(&to, parent, "in the guest", "guestline mkdir -p"));
            }
            found => found.trying("stat", parent, vm)?,
        };
    }
    let options = PushOptions {
        parents: true,
        // This host's links are its own affair; none is followed.
        outside_links: true,
        ..PushOptions::default()
    };
    let watch = Watch::new(transfer, &to);
    let pushed = files.push_from(from, &to, options, watch.clone()).await;
    pushed.trying("copy to", &to, vm)?;
    watch.end()
}

async fn download(
    transfer: &Transfer<'_>,
    from: &Path,
    to: PathBuf,
    recursive: bool,
    outside_links: OutsideLinks,
) -> Result<(), Failure> {
    let vm = transfer.vm;
    let top = vm.files().stat(from).await.trying("read", from, vm)?;
    let to = target(to.clone(), to.is_dir(), from);
    if !top.is_dir() {
        return match transfer.resume {
            true => transfer.resume_download(from, &to).await,
            false => transfer.download(from, &to).await,
        };
    }
    need_recursive(from, recursive)?;
    if let Some(parent) = parent(&to)
        && !parent.is_dir()
    {
        return Err(no_parent(&to, parent, "on this host", "mkdir -p"));
    }
    let watch = Watch::new(transfer, from);
    let files = vm.files();
    let pulled = files.pull_to(from, &to, outside_links, watch.clone());
    pulled.await.trying("copy", from, vm)?;
    watch.end()
}

/// In the guest, by the guest: no byte of it comes here.
async fn within(vm: &Vm, from: &Path, to: PathBuf, recursive: bool) -> Result<(), Failure> {
    let files = vm.files();
    let top = files.stat(from).await.trying("read", from, vm)?;
    if top.is_dir() {
        need_recursive(from, recursive)?;
    }
    let to = guests_target(vm, to, from).await?;
    let options = CopyOptions {
        recursive,
        overwrite: true,
        preserve: true,
    };
    files
        .copy(from, &to, options)
        .await
        .trying("copy to", &to, vm)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_marks_the_guests_side() {
        assert_eq!(in_guest(Path::new(":/etc")), Some("/etc".into()));
        assert_eq!(in_guest(Path::new(":")), Some(".".into()));
        assert_eq!(in_guest(Path::new("./:x")), None);
    }
}

//! `guestline cat`, `rm`, `mkdir`, `stat`, `mv` and `ln`: one call a path.

use std::path::PathBuf;

use guestline_client::{RenameMode, Vm};
use serde_json::{Map, Value};

use super::{
    Outcome,
    failure::Trying,
    output::{
        metadata_json, mode_text, print, print_json, printable_path, put_bytes, time_text,
        type_word,
    },
    program::bytes,
    write::mode,
};

#[derive(Debug, clap::Args)]
pub(super) struct CatArguments {
    /// Begin at this byte of each file, as in 4096 or 1M
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true, value_parser = bytes)]
    offset: u64,
    /// At most so many bytes of each file; to its end otherwise
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    length: Option<u64>,
    /// Files in the guest
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RmArguments {
    /// Also remove directories, with all below them
    #[arg(short, long)]
    recursive: bool,
    /// Do not fail for what is not there
    #[arg(short, long)]
    force: bool,
    /// What to remove in the guest
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct MkdirArguments {
    /// Also make missing parents, and do not fail for a directory that is there
    #[arg(short, long)]
    parents: bool,
    /// Permission bits in octal, less the umask 022
    #[arg(short, long, value_parser = mode)]
    mode: Option<u32>,
    /// Directories to make in the guest
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatArguments {
    /// Show what a symbolic link leads to
    #[arg(short = 'L', long)]
    dereference: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// A path in the guest
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct MvArguments {
    /// Fail if something is at the new name
    #[arg(short, long)]
    no_clobber: bool,
    /// Let the two files change places
    #[arg(long, conflicts_with = "no_clobber")]
    exchange: bool,
    /// A path in the guest
    from: PathBuf,
    /// Its new name, whole: no directory to move into
    to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct LnArguments {
    /// Make a symbolic link; a hard link otherwise
    #[arg(short, long)]
    symbolic: bool,
    /// The existing file, or the text of a symbolic link
    target: PathBuf,
    /// The name to make in the guest
    path: PathBuf,
}

pub(super) async fn cat(arguments: CatArguments, vm: &Vm) -> Outcome {
    let CatArguments {
        offset,
        length,
        paths,
    } = arguments;
    for path in &paths {
        let reader = vm.files().open_range(path, offset, length).await;
        let mut reader = reader.trying("read", path, vm)?;
        while let Some(chunk) = reader.chunk().await.trying("read", path, vm)? {
            print(&chunk)?;
        }
    }
    Ok(0)
}

pub(super) async fn rm(arguments: RmArguments, vm: &Vm) -> Outcome {
    for path in &arguments.paths {
        let removed = vm
            .files()
            .remove(path, arguments.recursive, arguments.force)
            .await;
        removed.trying("remove", path, vm)?;
    }
    Ok(0)
}

pub(super) async fn mkdir(arguments: MkdirArguments, vm: &Vm) -> Outcome {
    for path in &arguments.paths {
        let made = vm
            .files()
            .make_directory(path, arguments.parents, arguments.mode)
            .await;
        made.trying("make the directory", path, vm)?;
    }
    Ok(0)
}

pub(super) async fn stat(arguments: StatArguments, vm: &Vm) -> Outcome {
    let path = &arguments.path;
    let metadata = match arguments.dereference {
        true => vm.files().stat(path).await,
        false => vm.files().lstat(path).await,
    };
    let metadata = metadata.trying("stat", path, vm)?;
    if arguments.json {
        let mut object = Map::new();
        put_bytes(&mut object, "path", path.as_os_str());
        object.extend(metadata_json(&metadata));
        print_json(&Value::Object(object))?;
        return Ok(0);
    }
    let target = metadata.link_target.as_deref().map(printable_path);
    let arrow = target
        .map(|target| format!(" -> {target}"))
        .unwrap_or_default();
    let text = format!(
        "  path: {}{arrow}\n  type: {}\n  mode: {:04o} {}\n owner: {}:{}\n  size: {}\n links: {}\n inode: {}\nmodified: {}\n changed: {}\naccessed: {}\n",
        printable_path(path),
        type_word(metadata.file_type),
        metadata.mode,
        mode_text(&metadata),
        metadata.uid,
        metadata.gid,
        metadata.size,
        metadata.hard_links,
        metadata.inode,
        time_text(metadata.modified),
        time_text(metadata.changed),
        time_text(metadata.accessed),
    );
    print(text.as_bytes()).map(|()| 0)
}

pub(super) async fn mv(arguments: MvArguments, vm: &Vm) -> Outcome {
    let MvArguments {
        no_clobber,
        exchange,
        from,
        to,
    } = arguments;
    let mode = match (no_clobber, exchange) {
        (true, _) => RenameMode::NoReplace,
        (_, true) => RenameMode::Exchange,
        _ => RenameMode::Replace,
    };
    vm.files()
        .rename(&from, &to, mode)
        .await
        .trying("rename", &from, vm)?;
    Ok(0)
}

pub(super) async fn ln(arguments: LnArguments, vm: &Vm) -> Outcome {
    let LnArguments {
        symbolic,
        target,
        path,
    } = arguments;
    let linked = match symbolic {
        true => vm.files().symlink(&target, &path).await,
        false => vm.files().hard_link(&target, &path).await,
    };
    linked.trying("make the link", &path, vm)?;
    Ok(0)
}

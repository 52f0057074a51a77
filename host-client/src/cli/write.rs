//! `guestline write`.

use std::path::PathBuf;

use guestline_client::{Vm, WriteOptions};

use super::{Outcome, failure::Trying};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Add to the end of the file that is there
    #[arg(long, group = "how")]
    append: bool,
    /// Write into the file that is there instead of replacing it atomically
    #[arg(long, group = "how")]
    in_place: bool,
    /// Fail if something has that name
    #[arg(long, group = "how")]
    create_new: bool,
    /// Permission bits in octal
    #[arg(long, value_parser = mode)]
    mode: Option<u32>,
    /// Create missing parent directories
    #[arg(short, long)]
    parents: bool,
    /// Wait until it is on the guest's disk
    #[arg(long)]
    sync: bool,
    /// A file in the guest
    path: PathBuf,
}

/// Permission bits as people write them.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("expected octal permission bits, as in 644".into()),
    }
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let mut options = match (arguments.append, arguments.in_place, arguments.create_new) {
        (true, ..) => WriteOptions::append(),
        (_, true, _) => WriteOptions::truncate(),
        (.., true) => WriteOptions::create_new(),
        _ => WriteOptions::replace(),
    };
    options = options.parents(arguments.parents).sync(arguments.sync);
    if let Some(mode) = arguments.mode {
        options = options.permissions(mode);
    }
    let path = &arguments.path;
    let mut writer = vm
        .files()
        .write_with(path, options)
        .await
        .trying("write", path, vm)?;
    writer
        .write_from(&mut tokio::io::stdin())
        .await
        .trying("write", path, vm)?;
    writer.finish().await.trying("write", path, vm)?;
    Ok(0)
}

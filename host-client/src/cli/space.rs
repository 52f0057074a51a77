//! `guestline df`.

use std::path::{Path, PathBuf};

use guestline_client::{Disk, Space, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    output::{print, print_json, printable, printable_path, put_bytes},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Show the file systems of these paths; all disks otherwise
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    if arguments.paths.is_empty() {
        let info = vm.system().info().await.trying_to("list the disks", vm)?;
        return disks(&info.disks, arguments.json);
    }
    let mut spaces = Vec::new();
    for path in &arguments.paths {
        let space = vm.files().space(path).await;
        spaces.push((path.as_path(), space.trying("ask the space of", path, vm)?));
    }
    paths(&spaces, arguments.json)
}

fn disks(disks: &[Disk], json: bool) -> Outcome {
    if json {
        print_json(&disks.iter().map(disk_json).collect())?;
        return Ok(0);
    }
    let mut text = format!("{HEAD} {:<24} mounted on\n", "device");
    for disk in disks {
        let columns = columns(disk.total, disk.available);
        let (device, at) = (
            printable_path(&disk.device),
            printable_path(&disk.mount_point),
        );
        let kind = printable(disk.file_system.as_bytes());
        text.push_str(&format!("{columns} {device:<24} {at} ({kind})\n"));
    }
    print(text.as_bytes()).map(|()| 0)
}

/// A disk as `info` and `metrics` print it too.
pub(super) fn disk_json(disk: &Disk) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "mount_point", disk.mount_point.as_os_str());
    put_bytes(&mut object, "device", disk.device.as_os_str());
    object.insert("file_system".into(), json!(disk.file_system));
    object.insert("total".into(), json!(disk.total));
    object.insert("available".into(), json!(disk.available));
    Value::Object(object)
}

fn paths(spaces: &[(&Path, Space)], json: bool) -> Outcome {
    if json {
        let document = |(path, space): &(&Path, Space)| {
            let mut object = Map::new();
            put_bytes(&mut object, "path", path.as_os_str());
            object.insert("total".into(), json!(space.total));
            object.insert("free".into(), json!(space.free));
            object.insert("available".into(), json!(space.available));
            object.insert("inodes".into(), json!(space.inodes));
            object.insert("inodes_free".into(), json!(space.inodes_free));
            object.insert("read_only".into(), json!(space.read_only));
            Value::Object(object)
        };
        print_json(&spaces.iter().map(document).collect())?;
        return Ok(0);
    }
    let mut text = format!("{HEAD} {:>12} path\n", "inodes free");
    for (path, space) in spaces {
        let columns = columns(space.total, space.available);
        let note = if space.read_only { " (read-only)" } else { "" };
        let (inodes, path) = (space.inodes_free, printable_path(path));
        text.push_str(&format!("{columns} {inodes:>12} {path}{note}\n"));
    }
    print(text.as_bytes()).map(|()| 0)
}

const HEAD: &str = "   total MiB available MiB  used";

/// What is not available counts as used, as for df(1)'s per cent.
fn columns(total: u64, available: u64) -> String {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let used = match total {
        0 => 0,
        total => (u128::from(total.saturating_sub(available)) * 100).div_ceil(u128::from(total)),
    };
    format!("{:>12} {:>13} {used:>4}%", mib(total), mib(available))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_not_called_empty() {
        let gib = 1 << 30;
        assert!(columns(100 * gib, gib).ends_with(" 99%"));
        assert!(columns(3 * gib, 2 * gib).ends_with(" 34%"));
        assert!(columns(0, 0).ends_with(" 0%"));
        assert!(columns(u64::MAX, 0).ends_with("100%"));
    }
}

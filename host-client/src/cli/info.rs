//! `guestline info`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use guestline_client::{Info, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    output::{print, print_json, printable, printable_path, put_bytes, seconds},
    space::disk_json,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn info(arguments: Arguments, vm: &Vm) -> Outcome {
    let info = vm
        .system()
        .info()
        .await
        .trying_to("ask what the guest is", vm)?;
    if arguments.json {
        print_json(&document(&info))?;
        return Ok(0);
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let plain = |text: &str| printable(text.as_bytes());
    let mut text = format!(
        "agent     {}\nhost name {}\nsystem    {}, Linux {} {}\nup        {} s (boot {}, generation {})\nload      {:.2} {:.2} {:.2} on {} cores\nmemory    {} of {} MiB available\nyou are   {} (uid {}, gid {}), home {}\nhas       {}\n",
        plain(&info.agent_version),
        plain(&info.hostname),
        plain(&info.operating_system),
        plain(&info.kernel),
        plain(&info.architecture),
        info.uptime.as_secs(),
        plain(&info.boot_id),
        info.generation,
        info.load[0],
        info.load[1],
        info.load[2],
        info.cpus,
        mib(info.memory.available),
        mib(info.memory.total),
        word(&info.identity.user),
        info.identity.uid,
        info.identity.gid,
        printable_path(&info.identity.home),
        plain(&info.capabilities.join(" ")),
    );
    for disk in &info.disks {
        let (at, of) = (
            printable_path(&disk.mount_point),
            printable_path(&disk.device),
        );
        let (free, all) = (mib(disk.available), mib(disk.total));
        text.push_str(&format!(
            "disk      {at} on {of}: {free} of {all} MiB free\n"
        ));
    }
    print(text.as_bytes()).map(|()| 0)
}

fn document(info: &Info) -> Value {
    let mut identity = Map::new();
    put_bytes(&mut identity, "user", &info.identity.user);
    put_bytes(&mut identity, "home", info.identity.home.as_os_str());
    put_bytes(&mut identity, "shell", info.identity.shell.as_os_str());
    identity.insert("uid".into(), json!(info.identity.uid));
    identity.insert("gid".into(), json!(info.identity.gid));
    identity.insert("groups".into(), json!(info.identity.groups));
    json!({
        "agent_version": info.agent_version,
        "hostname": info.hostname,
        "kernel": info.kernel,
        "architecture": info.architecture,
        "operating_system": info.operating_system,
        "boot_id": info.boot_id,
        "generation": info.generation,
        "uptime": info.uptime.as_secs_f64(),
        "now": info.now.map(seconds),
        "load": info.load,
        "cpus": info.cpus,
        "memory": {
            "total": info.memory.total,
            "free": info.memory.free,
            "available": info.memory.available,
            "swap_total": info.memory.swap_total,
            "swap_free": info.memory.swap_free,
        },
        "disks": info.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "identity": identity,
        "capabilities": info.capabilities,
    })
}

fn word(text: &OsStr) -> String {
    printable(text.as_bytes())
}

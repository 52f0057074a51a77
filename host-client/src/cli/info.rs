//! `guestline info`, `users` and `groups`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use guestline_client::{Group, Info, User, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    output::{print, print_json, printable, printable_path, put_bytes, seconds},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
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
    let disks = info.disks.iter().map(|disk| {
        let mut object = Map::new();
        put_bytes(&mut object, "mount_point", disk.mount_point.as_os_str());
        put_bytes(&mut object, "device", disk.device.as_os_str());
        object.insert("file_system".into(), json!(disk.file_system));
        object.insert("total".into(), json!(disk.total));
        object.insert("available".into(), json!(disk.available));
        Value::Object(object)
    });
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
        "disks": disks.collect::<Vec<_>>(),
        "identity": identity,
        "capabilities": info.capabilities,
    })
}

fn word(text: &OsStr) -> String {
    printable(text.as_bytes())
}

pub(super) async fn users(arguments: Arguments, vm: &Vm) -> Outcome {
    let users = vm.system().users().await.trying_to("list the users", vm)?;
    if arguments.json {
        print_json(&users.iter().map(user_document).collect())?;
        return Ok(0);
    }
    let line = |user: &User| {
        let (home, shell) = (printable_path(&user.home), printable_path(&user.shell));
        format!(
            "{:<20} {:>6} {:>6} {home} {shell}\n",
            word(&user.name),
            user.uid,
            user.gid
        )
    };
    print(users.iter().map(line).collect::<String>().as_bytes()).map(|()| 0)
}

fn user_document(user: &User) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "name", &user.name);
    object.insert("uid".into(), json!(user.uid));
    object.insert("gid".into(), json!(user.gid));
    put_bytes(&mut object, "comment", &user.comment);
    put_bytes(&mut object, "home", user.home.as_os_str());
    put_bytes(&mut object, "shell", user.shell.as_os_str());
    object.into()
}

pub(super) async fn groups(arguments: Arguments, vm: &Vm) -> Outcome {
    let groups = vm
        .system()
        .groups()
        .await
        .trying_to("list the groups", vm)?;
    let members = |group: &Group| {
        group
            .members
            .iter()
            .map(|name| word(name))
            .collect::<Vec<_>>()
    };
    if arguments.json {
        let document = |group: &Group| {
            let mut object = Map::new();
            put_bytes(&mut object, "name", &group.name);
            object.insert("gid".into(), json!(group.gid));
            object.insert("members".into(), json!(members(group)));
            Value::Object(object)
        };
        print_json(&groups.iter().map(document).collect())?;
        return Ok(0);
    }
    let line = |group: &Group| {
        format!(
            "{:<20} {:>6} {}\n",
            word(&group.name),
            group.gid,
            members(group).join(",")
        )
    };
    print(groups.iter().map(line).collect::<String>().as_bytes()).map(|()| 0)
}

//! `guestline users` and `groups`: those there are, and new ones.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use clap::Subcommand;
use guestline_client::{CreateGroup, CreateUser, Group, User, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    output::{print, print_json, printable, printable_path, put_bytes},
};

#[derive(Debug, clap::Args)]
pub(super) struct UsersArguments {
    #[command(subcommand)]
    command: Option<UsersCommand>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Create a user, by the guest's own tool, and print its line
    Add(NewUser),
}

#[derive(Debug, clap::Args)]
struct NewUser {
    /// a-z, 0-9, _ and -, at most 32
    name: String,
    /// The user id; the next free one otherwise
    #[arg(long)]
    uid: Option<u32>,
    /// A group to be in, which must be there; may be given more than once
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The home directory; /home/NAME otherwise
    #[arg(long, value_name = "PATH")]
    home: Option<String>,
    /// The login shell
    #[arg(long, value_name = "PATH")]
    shell: Option<String>,
    /// A system user: without a home of its own, and with nologin as its shell
    #[arg(long)]
    system: bool,
    /// The comment field: a full name, say
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct GroupsArguments {
    #[command(subcommand)]
    command: Option<GroupsCommand>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    /// Create a group, by the guest's own tool, and print its line
    Add(NewGroup),
}

#[derive(Debug, clap::Args)]
struct NewGroup {
    /// a-z, 0-9, _ and -, at most 32
    name: String,
    /// The group id; the next free one otherwise
    #[arg(long)]
    gid: Option<u32>,
    /// A system group
    #[arg(long)]
    system: bool,
}

pub(super) async fn users(arguments: UsersArguments, vm: &Vm) -> Outcome {
    let users = match arguments.command {
        None => vm.system().users().await.trying_to("list the users", vm)?,
        Some(UsersCommand::Add(new)) => {
            let what = format!("create the user {}", printable(new.name.as_bytes()));
            let new = CreateUser {
                name: new.name,
                uid: new.uid,
                groups: new.groups,
                home: new.home,
                shell: new.shell,
                system: new.system,
                comment: new.comment,
            };
            vec![vm.system().create_user(new).await.trying_to(&what, vm)?]
        }
    };
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

pub(super) async fn groups(arguments: GroupsArguments, vm: &Vm) -> Outcome {
    let groups = match arguments.command {
        None => {
            let groups = vm.system().groups().await;
            groups.trying_to("list the groups", vm)?
        }
        Some(GroupsCommand::Add(new)) => {
            let what = format!("create the group {}", printable(new.name.as_bytes()));
            let new = CreateGroup {
                name: new.name,
                gid: new.gid,
                system: new.system,
            };
            vec![vm.system().create_group(new).await.trying_to(&what, vm)?]
        }
    };
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

fn word(text: &OsStr) -> String {
    printable(text.as_bytes())
}

//! `guestline chmod`, `chown` and `xattr`: what a file has besides its content.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use clap::Subcommand;
use guestline_client::{SetAttributes, Vm};

use super::{
    Outcome,
    failure::{Failure, Trying},
    output::{print, printable},
    write::mode,
};

#[derive(Debug, clap::Args)]
pub(super) struct ChmodArguments {
    /// Permission, set-id and sticky bits in octal
    #[arg(value_parser = mode)]
    mode: u32,
    /// Files in the guest; of a symbolic link, what it leads to
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChownArguments {
    /// Change symbolic links themselves, not what they lead to
    #[arg(long)]
    no_dereference: bool,
    /// `USER`, `USER:GROUP` or `:GROUP`: names of the guest's, or numbers
    owner: OsString,
    /// Files in the guest
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct XattrArguments {
    #[command(subcommand)]
    command: XattrCommand,
}

#[derive(Debug, Subcommand)]
enum XattrCommand {
    /// Print all that the user may see: NAME=VALUE, escaped
    List {
        /// A file in the guest
        path: PathBuf,
    },
    /// Write a value to stdout, as it is
    Get {
        /// A file in the guest
        path: PathBuf,
        /// With its namespace, as in `user.origin`
        name: OsString,
    },
    /// Set a value
    Set {
        /// A file in the guest
        path: PathBuf,
        /// With its namespace, as in `user.origin`
        name: OsString,
        /// The value
        value: OsString,
    },
    /// Remove an attribute
    Remove {
        /// A file in the guest
        path: PathBuf,
        /// With its namespace, as in `user.origin`
        name: OsString,
    },
}

pub(super) async fn chmod(arguments: ChmodArguments, vm: &Vm) -> Outcome {
    let set = SetAttributes {
        mode: Some(arguments.mode),
        ..SetAttributes::default()
    };
    change("change the mode of", &arguments.paths, &set, vm).await
}

pub(super) async fn chown(arguments: ChownArguments, vm: &Vm) -> Outcome {
    let mut parts = arguments.owner.as_bytes().splitn(2, |&byte| byte == b':');
    let (user, group) = (parts.next().unwrap_or_default(), parts.next());
    let uid = match user {
        b"" => None,
        user => Some(uid_of(OsStr::from_bytes(user), vm).await?),
    };
    let gid = match group {
        None | Some(b"") => None,
        Some(group) => Some(gid_of(OsStr::from_bytes(group), vm).await?),
    };
    let set = SetAttributes {
        uid,
        gid,
        no_follow: arguments.no_dereference,
        ..SetAttributes::default()
    };
    change("change the owner of", &arguments.paths, &set, vm).await
}

async fn change(verb: &str, paths: &[PathBuf], set: &SetAttributes, vm: &Vm) -> Outcome {
    for path in paths {
        let changed = vm.files().set_attributes(path, set.clone()).await;
        changed.trying(verb, path, vm)?;
    }
    Ok(0)
}

fn number(text: &OsStr) -> Option<u32> {
    text.to_str()?.parse().ok()
}

async fn uid_of(name: &OsStr, vm: &Vm) -> Result<u32, Failure> {
    if let Some(uid) = number(name) {
        return Ok(uid);
    }
    let users = vm.system().users().await.trying_to("list the users", vm)?;
    let user = users.iter().find(|user| user.name == name);
    user.map(|user| user.uid)
        .ok_or_else(|| unknown("user", name))
}

async fn gid_of(name: &OsStr, vm: &Vm) -> Result<u32, Failure> {
    if let Some(gid) = number(name) {
        return Ok(gid);
    }
    let groups = vm.system().groups().await;
    let groups = groups.trying_to("list the groups", vm)?;
    let group = groups.iter().find(|group| group.name == name);
    group
        .map(|group| group.gid)
        .ok_or_else(|| unknown("group", name))
}

fn unknown(what: &str, name: &OsStr) -> Failure {
    let name = printable(name.as_bytes());
    Failure::Told(format!(
        "the guest has no {what} {name}; `guestline {what}s` lists those it has"
    ))
}

pub(super) async fn xattr(arguments: XattrArguments, vm: &Vm) -> Outcome {
    let files = vm.files();
    match arguments.command {
        XattrCommand::List { path } => {
            let all = files.extended_attributes(&path).await;
            for (name, value) in all.trying("read the attributes of", &path, vm)? {
                let (name, value) = (printable(name.as_bytes()), printable(&value));
                print(format!("{name}={value}\n").as_bytes())?;
            }
        }
        XattrCommand::Get { path, name } => {
            let value = files.extended_attribute(&path, &name).await;
            let value = value.trying("read an attribute of", &path, vm)?;
            let Some(value) = value else {
                let name = printable(name.as_bytes());
                return Err(Failure::Told(format!("it has no attribute {name}")));
            };
            print(&value)?;
        }
        XattrCommand::Set { path, name, value } => {
            let value = value.into_vec();
            let set = files.set_extended_attribute(&path, &name, value).await;
            set.trying("set an attribute of", &path, vm)?;
        }
        XattrCommand::Remove { path, name } => {
            let removed = files.remove_extended_attribute(&path, &name).await;
            removed.trying("remove an attribute of", &path, vm)?;
        }
    }
    Ok(0)
}

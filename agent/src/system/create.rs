//! Creates users and groups with the guest's own tools (shadow's useradd and groupadd, else busybox's adduser and
//! addgroup), which know its locks, its skeleton and its shadow files. With the worker's own rights: for anybody but
//! root the kernel refuses to open /etc/passwd for writing, and that is the answer.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    path::Path,
    process::{Command, Stdio},
};

use nix::errno::Errno;
use thiserror::Error;

use crate::sys::errno_of;

use super::{
    accounts::{self, AccountError, GROUP, Group, PASSWD, User},
    tool,
};

/// The longest name that useradd(8) takes.
const MAX_NAME: usize = 32;

/// The longest part of a tool's own words that is passed on.
const MAX_WORDS: usize = 512;

/// A user to make.
#[derive(Debug, Default)]
pub(crate) struct NewUser {
    pub(crate) name: String,
    pub(crate) uid: Option<u32>,
    pub(crate) groups: Vec<String>,
    pub(crate) home: Option<String>,
    pub(crate) shell: Option<String>,
    pub(crate) system: bool,
    pub(crate) comment: String,
}

/// A group to make.
#[derive(Debug, Default)]
pub(crate) struct NewGroup {
    pub(crate) name: String,
    pub(crate) gid: Option<u32>,
    pub(crate) system: bool,
}

/// Why it was not made.
#[derive(Debug, Error)]
pub(crate) enum CreateError {
    #[error("the {0} has characters it cannot have")]
    Invalid(&'static str),
    #[error("{0:?} is there already")]
    Exists(String),
    #[error("no group {0:?} in this guest")]
    NoGroup(String),
    #[error("cannot open {path} for writing")]
    Denied { path: &'static str, errno: Errno },
    #[error("this guest has neither {0} nor {1}")]
    NoTool(&'static str, &'static str),
    #[error("cannot run {tool}")]
    Run { tool: &'static str, errno: Errno },
    #[error("{tool} failed: {words}")]
    Tool { tool: &'static str, words: String },
    #[error("cannot read the accounts")]
    Accounts(#[from] AccountError),
}

/// Creates a user with a home, without a password.
pub(crate) fn create_user(new: &NewUser) -> Result<User, CreateError> {
    check_name(&new.name)?;
    check_user_fields(new)?;
    may_write(PASSWD)?;
    let users = accounts::users()?;
    if users
        .iter()
        .any(|user| user.name == new.name.as_str() || Some(user.uid) == new.uid)
    {
        return Err(CreateError::Exists(new.name.clone()));
    }
    let groups = accounts::groups()?;
    if let Some(missing) = new
        .groups
        .iter()
        .find(|name| !groups.iter().any(|group| group.name == name.as_str()))
    {
        return Err(CreateError::NoGroup(missing.clone()));
    }
    match tool::find("useradd") {
        Some(tool) => run("useradd", &tool, useradd(new))?,
        None => {
            let tool = tool::find("adduser").ok_or(CreateError::NoTool("useradd", "adduser"))?;
            run("adduser", &tool, busybox_adduser(new))?;
            for group in &new.groups {
                run(
                    "adduser",
                    &tool,
                    vec![new.name.clone().into(), group.into()],
                )?;
            }
        }
    }
    let made = accounts::users()?
        .into_iter()
        .find(|user| user.name == new.name.as_str());
    made.ok_or_else(|| CreateError::Tool {
        tool: "useradd",
        words: "it made no such user".into(),
    })
}

/// Creates a group.
pub(crate) fn create_group(new: &NewGroup) -> Result<Group, CreateError> {
    check_name(&new.name)?;
    may_write(GROUP)?;
    let groups = accounts::groups()?;
    if groups
        .iter()
        .any(|group| group.name == new.name.as_str() || Some(group.gid) == new.gid)
    {
        return Err(CreateError::Exists(new.name.clone()));
    }
    let mut arguments: Vec<OsString> = Vec::new();
    let gid = new.gid.map(|gid| gid.to_string());
    gid.iter()
        .for_each(|gid| arguments.extend(["-g".into(), gid.into()]));
    let (name, tool, system) = match tool::find("groupadd") {
        Some(tool) => ("groupadd", tool, "-r"),
        None => (
            "addgroup",
            tool::find("addgroup").ok_or(CreateError::NoTool("groupadd", "addgroup"))?,
            "-S",
        ),
    };
    if new.system {
        arguments.push(system.into());
    }
    arguments.push((&new.name).into());
    run(name, &tool, arguments)?;
    let made = accounts::groups()?
        .into_iter()
        .find(|group| group.name == new.name.as_str());
    made.ok_or_else(|| CreateError::Tool {
        tool: name,
        words: "it made no such group".into(),
    })
}

fn useradd(new: &NewUser) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "-c".into(),
        (&new.comment).into(),
        "-s".into(),
        shell(new).into(),
    ];
    if new.system {
        arguments.push("-r".into());
    } else {
        arguments.push("-m".into());
    }
    arguments.extend(["-d".into(), home(new).into()]);
    if let Some(uid) = new.uid {
        arguments.extend(["-u".into(), uid.to_string().into()]);
    }
    if !new.groups.is_empty() {
        arguments.extend(["-G".into(), new.groups.join(",").into()]);
    }
    arguments.push((&new.name).into());
    arguments
}

fn busybox_adduser(new: &NewUser) -> Vec<OsString> {
    // -D: without a password.
    let mut arguments: Vec<OsString> = vec!["-D".into(), "-g".into(), (&new.comment).into()];
    arguments.extend([
        "-h".into(),
        home(new).into(),
        "-s".into(),
        shell(new).into(),
    ]);
    if new.system {
        arguments.extend(["-S".into(), "-H".into()]);
    }
    if let Some(uid) = new.uid {
        arguments.extend(["-u".into(), uid.to_string().into()]);
    }
    arguments.push((&new.name).into());
    arguments
}

fn home(new: &NewUser) -> String {
    let default = || {
        if new.system {
            "/".into()
        } else {
            format!("/home/{}", new.name)
        }
    };
    new.home.clone().unwrap_or_else(default)
}

fn shell(new: &NewUser) -> String {
    let first = |candidates: &[&str]| {
        let found = candidates.iter().find(|path| Path::new(path).exists());
        (*found.unwrap_or(&"/bin/false")).to_owned()
    };
    new.shell.clone().unwrap_or_else(|| match new.system {
        true => first(&["/usr/sbin/nologin", "/sbin/nologin"]),
        false => first(&["/bin/bash", "/bin/sh"]),
    })
}

fn check_name(name: &str) -> Result<(), CreateError> {
    let first = |c: u8| c.is_ascii_lowercase() || c == b'_';
    let rest = |c: u8| first(c) || c.is_ascii_digit() || c == b'-';
    let valid =
        name.len() <= MAX_NAME && name.bytes().next().is_some_and(first) && name.bytes().all(rest);
    if valid {
        Ok(())
    } else {
        Err(CreateError::Invalid("name"))
    }
}

/// What would break a line of passwd(5), or reach the tool as an option.
fn check_user_fields(new: &NewUser) -> Result<(), CreateError> {
    let plain = |text: &str| !text.chars().any(|c| c == ':' || c.is_control());
    let absolute = |path: &Option<String>| {
        path.as_ref()
            .is_none_or(|path| path.starts_with('/') && plain(path))
    };
    if !plain(&new.comment) {
        return Err(CreateError::Invalid("comment"));
    }
    if !absolute(&new.home) {
        return Err(CreateError::Invalid("home"));
    }
    if !absolute(&new.shell) {
        return Err(CreateError::Invalid("shell"));
    }
    new.groups
        .iter()
        .try_for_each(|group| check_name(group).map_err(|_| CreateError::Invalid("group")))
}

/// The kernel's word, before a tool puts it into its own.
fn may_write(path: &'static str) -> Result<(), CreateError> {
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(CreateError::Denied {
            path,
            errno: errno_of(&error),
        }),
    }
}

fn run(tool: &'static str, path: &str, arguments: Vec<OsString>) -> Result<(), CreateError> {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    let output = command.output().map_err(|error| CreateError::Run {
        tool,
        errno: errno_of(&error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    })
    .into_owned();
    let words = words[..words.floor_char_boundary(MAX_WORDS)].trim().into();
    Err(CreateError::Tool { tool, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_options_or_break_a_line_are_refused() {
        for name in [
            "",
            "-x",
            "a:b",
            "a b",
            "A",
            "1a",
            "a\nroot::0:0::/:/bin/sh",
            &"a".repeat(33),
        ] {
            assert!(
                matches!(check_name(name), Err(CreateError::Invalid("name"))),
                "{name:?}"
            );
        }
        check_name("_a-1").unwrap();
        let new = NewUser {
            name: "a".into(),
            home: Some("/a:b".into()),
            ..NewUser::default()
        };
        assert!(matches!(
            check_user_fields(&new),
            Err(CreateError::Invalid("home"))
        ));
    }
}

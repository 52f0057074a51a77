//! systemd's services, by way of the guest's own systemctl and journalctl, as the worker's user: what systemd and polkit
//! refuse to that user, they refuse here.

mod change;
mod error;
mod export;
mod logs;
mod name;

pub(crate) use change::{Action, NewService, control, create, remove};
pub(crate) use error::ServiceError;
pub(crate) use logs::{Line, LogReader, LogRequest};
pub(crate) use name::{Pattern, UnitName};

use std::{collections::BTreeSet, path::Path};

use super::tool;

/// As sd_booted(3) has it.
pub(crate) const BOOTED: &str = "/run/systemd/system";

const SYSTEMCTL: &str = "systemctl";

/// Services in one answer: some half a MiB of text at the most.
const MAX_SERVICES: usize = 1024;

/// The longest description that is passed on, in bytes.
const MAX_TEXT: usize = 256;

const PROPERTIES: &str = "--property=Id,Description,LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,ExecMainCode,ExecMainStatus";

/// A unit of type service, in systemd's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) load_state: String,
    pub(crate) active_state: String,
    pub(crate) sub_state: String,
    pub(crate) unit_file_state: String,
    /// 0: there is none.
    pub(crate) main_pid: i32,
    pub(crate) result: String,
    /// Of the main process's last end, as a shell tells it: 128 and the number for a signal.
    pub(crate) exit_status: i32,
}

impl Service {
    pub(crate) fn is_enabled(&self) -> bool {
        matches!(self.unit_file_state.as_str(), "enabled" | "enabled-runtime")
    }

    fn is_known(&self) -> bool {
        self.load_state != "not-found"
    }
}

/// All services that systemd has loaded or has a unit file of, in the order of their names.
pub(crate) async fn list(pattern: &Pattern<'_>) -> Result<Vec<Service>, ServiceError> {
    let mut names = BTreeSet::new();
    for listing in [&["list-unit-files"][..], &["list-units", "--all"]] {
        let options = ["--type=service", "--plain", "--full", "--no-legend", "--"];
        let arguments = [listing, &options[..], pattern.arguments()].concat();
        let output = systemctl(&arguments).await?;
        // Some versions answer 1 where nothing matches, and say nothing.
        if output.code != Some(0) && !output.words.is_empty() {
            return Err(ServiceError::refused("list", &output));
        }
        let first = |line: &str| Some(line.split_whitespace().next()?.to_owned());
        names.extend(output.stdout.lines().filter_map(first));
    }
    // A template is no service until something instantiates it.
    names.retain(|name| !name.contains("@."));
    if names.len() > MAX_SERVICES {
        return Err(ServiceError::TooMany(names.len()));
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut services = show(&names).await?;
    services.retain(Service::is_known);
    services.sort_by(|a, b| a.name.cmp(&b.name));
    // Aliases lead to the same service.
    services.dedup_by(|a, b| a.name == b.name);
    Ok(services)
}

/// One service. [`ServiceError::Unknown`] where systemd finds no such unit.
pub(crate) async fn status(name: &UnitName) -> Result<Service, ServiceError> {
    let service = look(name).await?;
    if service.is_known() {
        Ok(service)
    } else {
        Err(ServiceError::Unknown(name.clone()))
    }
}

/// One service, also of a name that systemd does not know.
async fn look(name: &UnitName) -> Result<Service, ServiceError> {
    let found = show(&[name.as_str()]).await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| ServiceError::Unknown(name.clone()))
}

async fn show(names: &[&str]) -> Result<Vec<Service>, ServiceError> {
    let output = systemctl(&[&["show", PROPERTIES, "--"], names].concat()).await?;
    if output.code != Some(0) {
        return Err(ServiceError::refused("show", &output));
    }
    Ok(output.stdout.split("\n\n").filter_map(parse).collect())
}

async fn systemctl(arguments: &[&str]) -> Result<tool::Finished, ServiceError> {
    check_booted()?;
    let arguments = [&["--no-pager", "--no-ask-password"], arguments].concat();
    Ok(tool::run(SYSTEMCTL, &arguments).await?)
}

/// Has systemd do what concerns no single unit.
pub(super) async fn order(verb: &'static str) -> Result<(), ServiceError> {
    let output = systemctl(&[verb]).await?;
    match output.code {
        Some(0) => Ok(()),
        _ => Err(ServiceError::refused(verb, &output)),
    }
}

fn check_booted() -> Result<(), ServiceError> {
    if Path::new(BOOTED).exists() {
        Ok(())
    } else {
        Err(ServiceError::NoSystemd)
    }
}

/// A block of `KEY=value` lines.
fn parse(block: &str) -> Option<Service> {
    let value = |key: &str| {
        let mut lines = block.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = value.unwrap_or_default();
        value[..value.floor_char_boundary(MAX_TEXT)].to_owned()
    };
    let number = |key| value(key).parse().unwrap_or(0);
    let name = value("Id");
    // CLD_KILLED and CLD_DUMPED of waitid(2).
    let signalled = matches!(number("ExecMainCode"), 2 | 3);
    (!name.is_empty()).then(|| Service {
        name,
        description: value("Description"),
        load_state: value("LoadState"),
        active_state: value("ActiveState"),
        sub_state: value("SubState"),
        unit_file_state: value("UnitFileState"),
        main_pid: number("MainPID"),
        result: value("Result"),
        exit_status: number("ExecMainStatus") + if signalled { 128 } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemctls_properties_are_read_as_it_prints_them() {
        let text = "MainPID=42\nResult=success\nExecMainCode=2\nExecMainStatus=9\nId=web.service\nDescription=a=b\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n";
        let service = parse(text).unwrap();
        assert_eq!(
            (service.name.as_str(), service.description.as_str()),
            ("web.service", "a=b")
        );
        assert_eq!((service.main_pid, service.exit_status), (42, 137));
        assert!(service.is_enabled() && service.is_known());
        assert_eq!(parse(""), None);
    }
}

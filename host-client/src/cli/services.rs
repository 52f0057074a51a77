//! `guestline services`.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use guestline_client::{CreateService, LogLine, LogOptions, Service, ServiceAction, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, OnHost, Trying},
    output::{hex, print, print_json, print_json_line, printable, seconds, time_text},
    program::seconds as parse_seconds,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: ServicesCommand,
    /// Print JSON; of logs, an object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ServicesCommand {
    /// List services
    List {
        /// A glob over their names; all otherwise
        #[arg(default_value = "")]
        pattern: String,
    },
    /// Show how services are; gives 3 if one is not active, as systemctl does
    Status(Names),
    /// Start services
    Start(Names),
    /// Stop services
    Stop(Names),
    /// Restart services
    Restart(Names),
    /// Have services started at boot
    Enable(Names),
    /// Have services not started at boot
    Disable(Names),
    /// Stop services and remove their unit files from /etc/systemd/system
    Remove(Names),
    /// Make a service of a unit file
    Create(Create),
    /// Show what a service logged
    Logs(Logs),
}

#[derive(Debug, clap::Args)]
struct Names {
    /// With or without `.service`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// With or without `.service`
    name: String,
    /// The unit file on this host; `-` is stdin
    unit: PathBuf,
    /// Have it started at boot
    #[arg(long)]
    enable: bool,
    /// Start it now
    #[arg(long)]
    start: bool,
}

#[derive(Debug, clap::Args)]
struct Logs {
    /// With or without `.service`
    name: String,
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: u32,
    /// Only lines of the last so many seconds, by this host's clock
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    since: Option<Duration>,
    /// Go on with the lines that are still to come
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let json = arguments.json;
    let control = async |names: Names, action, verb| control(names, action, verb, json, vm).await;
    match arguments.command {
        ServicesCommand::List { pattern } => list(pattern, json, vm).await,
        ServicesCommand::Status(names) => status(names, json, vm).await,
        ServicesCommand::Start(names) => control(names, ServiceAction::Start, "start").await,
        ServicesCommand::Stop(names) => control(names, ServiceAction::Stop, "stop").await,
        ServicesCommand::Restart(names) => control(names, ServiceAction::Restart, "restart").await,
        ServicesCommand::Enable(names) => control(names, ServiceAction::Enable, "enable").await,
        ServicesCommand::Disable(names) => control(names, ServiceAction::Disable, "disable").await,
        ServicesCommand::Remove(names) => control(names, ServiceAction::Remove, "remove").await,
        ServicesCommand::Create(new) => create(new, json, vm).await,
        ServicesCommand::Logs(which) => logs(which, json, vm).await,
    }
}

async fn list(pattern: String, json: bool, vm: &Vm) -> Outcome {
    let services = vm.system().services(pattern).await;
    let services = services.trying_to("list the services", vm)?;
    if json {
        print_json(&services.iter().map(document).collect())?;
        return Ok(0);
    }
    let line = |service: &Service| {
        format!(
            "{:<40} {:<10} {:<10} {:<10} {}\n",
            word(&service.name),
            word(&service.active_state),
            word(&service.sub_state),
            word(&service.unit_file_state),
            word(&service.description)
        )
    };
    print(services.iter().map(line).collect::<String>().as_bytes()).map(|()| 0)
}

async fn status(names: Names, json: bool, vm: &Vm) -> Outcome {
    let services = each(names, ServiceAction::Status, "look at", vm).await?;
    let code = match services.iter().all(|one| one.active_state == "active") {
        true => 0,
        false => 3,
    };
    if json {
        print_json(&services.iter().map(document).collect())?;
        return Ok(code);
    }
    for service in &services {
        let pid = service.main_pid.map(|pid| format!(", pid {pid}"));
        let text = format!(
            "{}: {}\n  {} ({}{}), unit file {}, last result {} ({})\n",
            word(&service.name),
            word(&service.description),
            word(&service.active_state),
            word(&service.sub_state),
            pid.unwrap_or_default(),
            word(&service.unit_file_state),
            word(&service.result),
            service.exit_status,
        );
        print(text.as_bytes())?;
    }
    Ok(code)
}

async fn control(names: Names, action: ServiceAction, verb: &str, json: bool, vm: &Vm) -> Outcome {
    let services = each(names, action, verb, vm).await?;
    if json {
        print_json(&services.iter().map(document).collect())?;
    }
    Ok(0)
}

async fn each(
    names: Names,
    action: ServiceAction,
    verb: &str,
    vm: &Vm,
) -> Result<Vec<Service>, Failure> {
    let mut services = Vec::new();
    for name in names.names {
        let what = format!("{verb} {}", word(&name));
        let service = vm.system().control_service(name, action).await;
        services.push(service.trying_to(&what, vm)?);
    }
    Ok(services)
}

async fn create(new: Create, json: bool, vm: &Vm) -> Outcome {
    let unit = if new.unit == Path::new("-") {
        let mut unit = String::new();
        std::io::stdin().read_to_string(&mut unit)?;
        unit
    } else {
        std::fs::read_to_string(&new.unit).on_host("read", &new.unit)?
    };
    let what = format!("create {}", word(&new.name));
    let service = CreateService {
        name: new.name,
        unit,
        enable: new.enable,
        start: new.start,
    };
    let made = vm.system().create_service(service).await;
    let made = made.trying_to(&what, vm)?;
    if json {
        print_json(&document(&made))?;
    }
    Ok(0)
}

async fn logs(which: Logs, json: bool, vm: &Vm) -> Outcome {
    let what = format!("read the log of {}", word(&which.name));
    let options = LogOptions {
        lines: Some(which.lines),
        since: which
            .since
            .and_then(|since| SystemTime::now().checked_sub(since)),
        follow: which.follow,
    };
    let lines = vm.system().service_logs(which.name, options).await;
    let mut lines = lines.trying_to(&what, vm)?;
    while let Some(line) = lines.next().await.trying_to(&what, vm)? {
        if json {
            print_json_line(&log_document(&line))?;
        } else {
            let at = line.time.map(time_text).unwrap_or_default();
            print(format!("{at} {}\n", printable(&line.text)).as_bytes())?;
        }
    }
    Ok(0)
}

fn word(text: &str) -> String {
    printable(text.as_bytes())
}

fn document(service: &Service) -> Value {
    json!({
        "name": service.name,
        "description": service.description,
        "load_state": service.load_state,
        "active_state": service.active_state,
        "sub_state": service.sub_state,
        "enabled": service.enabled,
        "main_pid": service.main_pid,
        "unit_file_state": service.unit_file_state,
        "result": service.result,
        "exit_status": service.exit_status,
    })
}

fn log_document(line: &LogLine) -> Value {
    let mut object = Map::new();
    object.insert("time".into(), json!(line.time.map(seconds)));
    object.insert("text".into(), json!(String::from_utf8_lossy(&line.text)));
    if std::str::from_utf8(&line.text).is_err() {
        object.insert("text_hex".into(), json!(hex(&line.text)));
    }
    object.insert("priority".into(), json!(line.priority));
    Value::Object(object)
}

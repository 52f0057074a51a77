//! `guestline time`, `reseed`, `freeze`, `thaw` and `shutdown`: what changes the guest as a whole.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use guestline_client::{ClockStep, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, OnHost, Trying},
    output::{print, print_json, printable_path, put_bytes, seconds, time_text},
    program::seconds as parse_seconds,
};

/// More than the 32 bytes of the guest's generator's key.
const ENTROPY: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct TimeArguments {
    #[command(subcommand)]
    command: Option<TimeCommand>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum TimeCommand {
    /// Set the guest's clock, to this host's unless told otherwise
    Set {
        /// Seconds since 1970, as `date +%s` prints them
        #[arg(value_name = "SECONDS", value_parser = parse_time)]
        time: Option<SystemTime>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct FreezeArguments {
    /// Thaw by itself after so many seconds, at most 300
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    timeout: Duration,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumedArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ThawArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShutdownArguments {
    /// Reboot it instead
    #[arg(long)]
    reboot: bool,
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    let wrong = "expected seconds since 1970";
    let since = text.parse().map_err(|_| wrong)?;
    let since = Duration::try_from_secs_f64(since).map_err(|_| wrong)?;
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .ok_or_else(|| wrong.into())
}

pub(super) async fn time(arguments: TimeArguments, vm: &Vm) -> Outcome {
    match arguments.command {
        Some(TimeCommand::Set { time }) => set_time(time, arguments.json, vm).await,
        None => show_time(arguments.json, vm).await,
    }
}

async fn set_time(time: Option<SystemTime>, json: bool, vm: &Vm) -> Outcome {
    // Connected by then, so that connecting does not make it late.
    vm.system().info().await.trying_to("reach the guest", vm)?;
    let time = time.unwrap_or_else(SystemTime::now);
    let step = vm.system().set_time(time).await;
    let step = step.trying_to("set the clock", vm)?;
    let step = signed(step);
    if json {
        print_json(&json!({ "time": seconds(time), "step": step }))?;
        return Ok(0);
    }
    let word = if step < 0.0 { "back" } else { "forward" };
    let (at, by) = (time_text(time), step.abs());
    print(format!("{at} UTC, {by:.3} s {word}\n").as_bytes()).map(|()| 0)
}

async fn show_time(json: bool, vm: &Vm) -> Outcome {
    let info = vm.system().info().await.trying_to("ask the time", vm)?;
    let Some(guest) = info.now else {
        return Err(Failure::Told("the guest's clock is out of range".into()));
    };
    let ahead = seconds(guest) - seconds(SystemTime::now());
    if json {
        print_json(&json!({ "time": seconds(guest), "ahead": ahead }))?;
        return Ok(0);
    }
    let word = if ahead < 0.0 { "behind" } else { "ahead of" };
    let (at, ahead) = (time_text(guest), ahead.abs());
    print(format!("{at} UTC, {ahead:.1} s {word} this host\n").as_bytes()).map(|()| 0)
}

pub(super) async fn reseed(vm: &Vm) -> Outcome {
    let reseeded = vm.system().reseed(entropy()?).await;
    reseeded.trying_to("reseed the random pool", vm)?;
    Ok(0)
}

pub(super) async fn resumed(arguments: ResumedArguments, vm: &Vm) -> Outcome {
    let entropy = entropy()?;
    // Connected by then, so that connecting does not make the time late.
    vm.system().info().await.trying_to("reach the guest", vm)?;
    let resumed = vm.system().resumed(SystemTime::now(), entropy).await;
    let (generation, step) = resumed.trying_to("resume", vm)?;
    let step = signed(step);
    if arguments.json {
        print_json(&json!({ "generation": generation, "step": step }))?;
        return Ok(0);
    }
    print(format!("generation {generation}, clock moved by {step:+.3} s\n").as_bytes()).map(|()| 0)
}

fn entropy() -> Result<Vec<u8>, Failure> {
    let source = Path::new("/dev/urandom");
    let mut entropy = vec![0; ENTROPY];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut entropy))
        .on_host("read", source)?;
    Ok(entropy)
}

/// In seconds; back is negative.
fn signed(step: ClockStep) -> f64 {
    match step {
        ClockStep::Forward(by) => by.as_secs_f64(),
        ClockStep::Back(by) => -by.as_secs_f64(),
    }
}

pub(super) async fn freeze(arguments: FreezeArguments, vm: &Vm) -> Outcome {
    let frozen = vm.system().freeze(Some(arguments.timeout)).await;
    show_paths(&frozen.trying_to("freeze", vm)?, arguments.json)
}

pub(super) async fn thaw(arguments: ThawArguments, vm: &Vm) -> Outcome {
    let thawed = vm.system().thaw().await;
    show_paths(&thawed.trying_to("thaw", vm)?, arguments.json)
}

fn show_paths(paths: &[PathBuf], json: bool) -> Outcome {
    if json {
        let document = |path: &PathBuf| {
            let mut object = Map::new();
            put_bytes(&mut object, "mount_point", path.as_os_str());
            Value::Object(object)
        };
        print_json(&paths.iter().map(document).collect())?;
        return Ok(0);
    }
    let line = |path: &PathBuf| format!("{}\n", printable_path(path));
    print(paths.iter().map(line).collect::<String>().as_bytes()).map(|()| 0)
}

pub(super) async fn shutdown(arguments: ShutdownArguments, vm: &Vm) -> Outcome {
    match arguments.reboot {
        true => vm.system().reboot().await.trying_to("reboot", vm)?,
        false => vm.system().power_off().await.trying_to("power off", vm)?,
    }
    Ok(0)
}

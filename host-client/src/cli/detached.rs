//! `guestline run`, `attach`, `ps` and `kill`: programs that live on without us.

use std::{str::FromStr, time::Duration};

use guestline_client::{Attached, Error, Offsets, Process, ProcessState, SignalTarget, Vm};
use indicatif::HumanBytes;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, Trying},
    output::{print, print_json, printable, put_bytes, seconds, time_text},
    program::{Program, bytes, pair},
    session::{End, Passing, Session, exit_code, relay},
    terminal,
};

/// How often, and how long apart, a lost connection is tried again.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// Print the process's number and leave at once
    #[arg(short, long)]
    detach: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Keep its stdin open, and pass ours on while we are attached
    #[arg(short, long)]
    interactive: bool,
    /// A name for `ps`, `attach` and `kill`
    #[arg(long)]
    name: Option<String>,
    /// A label for `ps --json`; may be given more than once
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// How many bytes of each output the guest keeps, as in 16M; 1 MiB otherwise
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep: Option<u64>,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, clap::Args)]
pub(super) struct AttachArguments {
    /// Pass our stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Make our terminal its terminal; Ctrl-] leaves it
    #[arg(short, long)]
    tty: bool,
    /// Go on from this byte of its stdout; from the oldest that is kept otherwise
    #[arg(long, value_name = "OFFSET")]
    stdout_from: Option<u64>,
    /// Go on from this byte of its stderr; from the oldest that is kept otherwise
    #[arg(long, value_name = "OFFSET")]
    stderr_from: Option<u64>,
    /// The program's number, name or pid, as `guestline ps` shows them
    process: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct PsArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct KillArguments {
    /// The signal, by name or number
    #[arg(short, long, default_value = "TERM", value_parser = signal)]
    signal: i32,
    /// Send it to the program alone, not to its process group
    #[arg(long)]
    leader: bool,
    /// Send it to all that the program started, daemons too
    #[arg(long, conflicts_with = "leader")]
    all: bool,
    /// The programs' numbers, names or pids, as `guestline ps` shows them
    #[arg(required = true)]
    processes: Vec<String>,
}

pub(super) async fn run(arguments: RunArguments, vm: &Vm) -> Outcome {
    let (mut command, what) = arguments.program.command(vm);
    command.stdin(arguments.interactive);
    if let Some(name) = arguments.name {
        command.name(name);
    }
    for (name, value) in arguments.labels {
        command.label(name, value);
    }
    if arguments.tty {
        let (columns, rows) = terminal::size();
        command.terminal(terminal::kind(), columns, rows);
    }
    let started = command.start(arguments.keep).await.trying_to(&what, vm)?;
    if arguments.detach {
        return print(format!("{}\n", started.process_id).as_bytes()).map(|()| 0);
    }
    let passing = Passing {
        tty: arguments.tty,
        stdin: arguments.interactive || arguments.tty,
    };
    attend(started.process_id, Offsets::default(), passing, vm).await
}

pub(super) async fn attach(arguments: AttachArguments, vm: &Vm) -> Outcome {
    let known = vm.processes().list().await;
    let known = known.trying_to("list the processes", vm)?;
    let id = find(&known, &arguments.process)?;
    let passing = Passing {
        tty: arguments.tty,
        stdin: arguments.interactive || arguments.tty,
    };
    let from = Offsets {
        stdout: arguments.stdout_from,
        stderr: arguments.stderr_from,
    };
    attend(id, from, passing, vm).await
}

/// To its end, over as many connections as that takes.
async fn attend(id: u64, from: Offsets, passing: Passing, vm: &Vm) -> Outcome {
    let what = format!("attach to process {id}");
    let attached = vm.processes().attach(id, from).await;
    let mut attached = attached.trying_to(&what, vm)?;
    loop {
        match relay(Session::Attached(attached), passing).await? {
            End::Exited(status) => return Ok(exit_code(&status)),
            End::Left => {
                eprintln!("guestline: left process {id}, which goes on: guestline attach {id}");
                return Ok(0);
            }
            End::Failed(session, error) => match (*session, error) {
                (Session::Attached(lost), Error::Lost(_)) => {
                    eprintln!("guestline: the connection was lost; attaching again");
                    attached = attach_again(id, &lost, vm).await.trying_to(&what, vm)?;
                }
                (_, error) => return Err(error).trying_to(&what, vm),
            },
        }
    }
}

async fn attach_again(id: u64, lost: &Attached, vm: &Vm) -> Result<Attached, Error> {
    let mut tries = 0;
    loop {
        tokio::time::sleep(PAUSE).await;
        tries += 1;
        match vm.processes().attach(id, lost.reached()).await {
            Err(Error::Lost(_) | Error::Connect { .. }) if tries < TRIES => {}
            result => return result,
        }
    }
}

pub(super) async fn ps(arguments: PsArguments, vm: &Vm) -> Outcome {
    let known = vm.processes().list().await;
    let known = known.trying_to("list the processes", vm)?;
    if arguments.json {
        print_json(&known.iter().map(document).collect())?;
        return Ok(0);
    }
    let mut text = format!(
        "{:<16} {:>7} {:<9} {:>8} {:>9} {:<19} {:<12} COMMAND\n",
        "PROCESS", "PID", "STATE", "CPU", "MEMORY", "STARTED", "NAME"
    );
    for process in &known {
        let started = process.started.map(time_text).unwrap_or_default();
        let command = process.command.iter();
        let command = command.map(|word| printable(word.as_encoded_bytes()));
        text.push_str(&format!(
            "{:<16} {:>7} {:<9} {:>7.2}s {:>9} {:<19} {:<12} {}\n",
            process.process_id,
            process.pid,
            state(process),
            process.cpu_time.as_secs_f64(),
            HumanBytes(process.max_resident).to_string(),
            started,
            printable(process.name.as_bytes()),
            command.collect::<Vec<_>>().join(" "),
        ));
    }
    print(text.as_bytes()).map(|()| 0)
}

pub(super) async fn kill(arguments: KillArguments, vm: &Vm) -> Outcome {
    let target = match (arguments.leader, arguments.all) {
        (true, _) => SignalTarget::Leader,
        (_, true) => SignalTarget::All,
        _ => SignalTarget::Group,
    };
    let known = vm.processes().list().await;
    let known = known.trying_to("list the processes", vm)?;
    for word in &arguments.processes {
        let id = find(&known, word)?;
        let killed = vm.processes().signal(id, arguments.signal, target).await;
        killed.trying_to(&format!("signal process {id}"), vm)?;
    }
    Ok(0)
}

/// By number, by pid if it runs, or by name: the one that runs, else the last that ended.
fn find(known: &[Process], word: &str) -> Result<u64, Failure> {
    if let Ok(number) = word.parse::<u64>() {
        let by_id = known.iter().find(|process| process.process_id == number);
        let runs = |process: &&Process| process.exit.is_none();
        let by_pid = known.iter().filter(runs);
        let by_pid = by_pid
            .into_iter()
            .find(|process| i64::from(process.pid) == number.cast_signed());
        // One that is not listed is for the guest to refuse.
        let found = by_id.or(by_pid);
        return Ok(found.map_or(number, |process| process.process_id));
    }
    let named: Vec<_> = known
        .iter()
        .filter(|process| process.name == word)
        .collect();
    let running: Vec<_> = named
        .iter()
        .filter(|process| process.exit.is_none())
        .collect();
    match (&running[..], named.last()) {
        ([one], _) => Ok(one.process_id),
        ([], Some(last)) => Ok(last.process_id),
        ([], None) => {
            let word = printable(word.as_bytes());
            Err(Failure::Told(format!(
                "no process is named {word}; see guestline ps"
            )))
        }
        (several, _) => {
            let ids: Vec<_> = several
                .iter()
                .map(|one| one.process_id.to_string())
                .collect();
            let text = format!("several processes have that name: {}", ids.join(", "));
            Err(Failure::Told(text))
        }
    }
}

fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number @ 1..=64) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    let signal = Signal::from_str(&full);
    signal
        .map(|signal| signal as i32)
        .map_err(|_| "expected a signal's name or number 1 to 64".into())
}

fn state(process: &Process) -> String {
    match (&process.exit, process.state) {
        (Some(exit), _) => match (exit.code, exit.signal) {
            (_, Some(signal)) => format!("signal {signal}"),
            (code, None) => format!("exit {}", code.unwrap_or_default()),
        },
        (None, ProcessState::Running) => "running".into(),
        (None, ProcessState::Waiting) => "waiting".into(),
        (None, ProcessState::Stopped) => "stopped".into(),
        (None, ProcessState::Exited) => "exiting".into(),
        (None, _) => "sleeping".into(),
    }
}

fn document(process: &Process) -> Value {
    let mut object = Map::new();
    object.insert("process".into(), json!(process.process_id));
    object.insert("pid".into(), json!(process.pid));
    put_bytes(&mut object, "user", &process.user);
    let command = process.command.iter().map(|word| word.to_string_lossy());
    object.insert("command".into(), json!(command.collect::<Vec<_>>()));
    object.insert("name".into(), json!(process.name));
    object.insert("labels".into(), json!(process.labels));
    object.insert("started".into(), json!(process.started.map(seconds)));
    object.insert("state".into(), json!(state(process)));
    object.insert(
        "exit_code".into(),
        json!(process.exit.as_ref().and_then(|exit| exit.code)),
    );
    object.insert(
        "signal".into(),
        json!(process.exit.as_ref().and_then(|exit| exit.signal)),
    );
    object.insert("detached".into(), json!(process.detached));
    object.insert("stdout_bytes".into(), json!(process.stdout_bytes));
    object.insert("stderr_bytes".into(), json!(process.stderr_bytes));
    object.insert("cpu_seconds".into(), json!(process.cpu_time.as_secs_f64()));
    object.insert("max_resident".into(), json!(process.max_resident));
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sighup"), Ok(1));
        assert_eq!(signal("34"), Ok(34));
        assert!(signal("0").is_err() && signal("65").is_err() && signal("NOPE").is_err());
    }
}

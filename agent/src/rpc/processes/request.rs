//! From the messages of a request to valid values of the domain.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use bytes::Bytes;
use guestline_proto::{
    MAX_CHUNK_SIZE,
    v1::{
        self, AttachRequest, DisconnectPolicy, LeftoverPolicy, ProcessSpec as Message, Resize,
        RunRequest, RunStart, SendSignal, SignalTarget, StartRequest, Terminal, attach_request,
        process_spec, run_request,
    },
};

use crate::{
    processes::{
        Command, Input, Leftovers, Limits, OnDisconnect, ProcessSpec, SignalNumber, Target,
        TerminalSpec, WindowSize,
    },
    rpc::status::Failure,
};

/// Arguments and environment together, with their NULs: the default ARG_MAX of Linux, a quarter of an 8 MiB stack.
const MAX_STRINGS: usize = 2 * 1024 * 1024;

/// As processes.proto says.
const LEAST_MEMORY: u64 = 256 * 1024;
const MAX_NAME: usize = 128;
const MAX_LABELS: usize = 16;
const MAX_LABEL: usize = 128;

const DEFAULT_UMASK: u32 = 0o022;
const DEFAULT_TERM: &[u8] = b"xterm-256color";

/// The size of a terminal whose client did not say: 0 by 0 breaks programs that divide by it.
const DEFAULT_SIZE: WindowSize = WindowSize {
    columns: 80,
    rows: 24,
};

/// As processes.proto says.
const DEFAULT_RING: u64 = 1024 * 1024;
const MAX_RING: u64 = 64 * 1024 * 1024;

/// A whole `RunStart`.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) process: ProcessSpec,
    pub(super) on_disconnect: OnDisconnect,
}

impl TryFrom<RunStart> for Start {
    type Error = Failure;

    fn try_from(start: RunStart) -> Result<Self, Failure> {
        let on_disconnect = match DisconnectPolicy::try_from(start.on_disconnect) {
            Ok(DisconnectPolicy::Unspecified) => OnDisconnect::HangUp,
            Ok(DisconnectPolicy::Kill) => OnDisconnect::Kill,
            Ok(DisconnectPolicy::Keep) => OnDisconnect::Keep,
            Err(_) => return Err(invalid("on_disconnect has an unknown value")),
        };
        let process = start.process.ok_or_else(|| invalid("process is missing"))?;
        Ok(Self {
            process: process.try_into()?,
            on_disconnect,
        })
    }
}

/// A whole `StartRequest`: what to run, and how many bytes of each output to keep.
pub(super) fn detached(request: StartRequest) -> Result<(ProcessSpec, usize), Failure> {
    let ring_size = match request.ring_size.unwrap_or(DEFAULT_RING) {
        size @ 1..=MAX_RING => usize::try_from(size).unwrap_or(usize::MAX),
        size => {
            let text = format!("ring_size is {size}, and must be 1 to {MAX_RING} bytes");
            return Err(invalid(text));
        }
    };
    let process = request.process;
    let process = process.ok_or_else(|| invalid("process is missing"))?;
    Ok((process.try_into()?, ring_size))
}

impl TryFrom<Message> for ProcessSpec {
    type Error = Failure;

    fn try_from(message: Message) -> Result<Self, Failure> {
        check_sizes(&message)?;
        let mut environment = std::collections::BTreeMap::new();
        for (name, value) in message.environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(invalid(format!(
                    "environment has the impossible name {name:?}"
                )));
            }
            environment.insert(name.into_bytes(), string("environment", value)?);
        }
        let command = command(message.command, message.login)?;
        let directory = message.directory.map(|path| string("directory", path));
        let limits = limits(message.limits.unwrap_or_default())?;
        if message.login_session && !limits.is_none() {
            return Err(invalid(
                "a login session has no limits: its cgroup is systemd's",
            ));
        }
        Ok(Self {
            command,
            environment,
            unset_environment: message.unset_environment,
            directory: directory
                .transpose()?
                .map(|path| OsString::from_vec(path).into()),
            terminal: message.terminal.map(terminal).transpose()?,
            stdin: message.stdin,
            merge_stderr: message.merge_stderr,
            timeout: message.timeout.map(timeout).transpose()?,
            umask: umask(message.umask)?,
            leftovers: leftovers(message.leftovers)?,
            name: message.name,
            labels: message.labels.into_iter().collect(),
            limits,
            login_session: message.login_session,
        })
    }
}

/// A later message of a Run.
pub(super) fn run_input(request: RunRequest) -> Result<Input, Failure> {
    use run_request::Message;
    match request.message {
        None => Err(Failure::invalid("run", "a message is empty or unknown")),
        Some(Message::Start(_)) => Err(Failure::invalid("run", "`start` came twice")),
        Some(Message::Stdin(chunk)) => stdin("run", chunk),
        Some(Message::CloseStdin(_)) => Ok(Input::CloseStdin),
        Some(Message::Resize(resize)) => window(resize),
        Some(Message::Signal(message)) => signal(message).map(|(n, to)| Input::Signal(n, to)),
    }
}

/// A later message of an Attach.
pub(super) fn attach_input(request: AttachRequest) -> Result<Input, Failure> {
    use attach_request::Message;
    match request.message {
        None => Err(Failure::invalid("attach", "a message is empty or unknown")),
        Some(Message::Start(_)) => Err(Failure::invalid("attach", "`start` came twice")),
        Some(Message::Stdin(chunk)) => stdin("attach", chunk),
        Some(Message::CloseStdin(_)) => Ok(Input::CloseStdin),
        Some(Message::Resize(resize)) => window(resize),
        Some(Message::Signal(message)) => signal(message).map(|(n, to)| Input::Signal(n, to)),
    }
}

fn stdin(operation: &'static str, chunk: Bytes) -> Result<Input, Failure> {
    if chunk.len() > MAX_CHUNK_SIZE {
        let text = format!("stdin has more than {MAX_CHUNK_SIZE} bytes");
        return Err(Failure::invalid(operation, text));
    }
    Ok(Input::Stdin(chunk))
}

fn window(Resize { columns, rows }: Resize) -> Result<Input, Failure> {
    size(columns, rows).map(Input::Resize)
}

pub(super) fn signal(message: SendSignal) -> Result<(SignalNumber, Target), Failure> {
    let number = SignalNumber::new(message.signal)
        .ok_or_else(|| Failure::invalid("signal", "signals have the numbers 1 to 64"))?;
    let target = match SignalTarget::try_from(message.target) {
        Ok(SignalTarget::Unspecified) => Target::Group,
        Ok(SignalTarget::Leader) => Target::Leader,
        Ok(SignalTarget::All) => Target::All,
        Err(_) => return Err(Failure::invalid("signal", "target has an unknown value")),
    };
    Ok((number, target))
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::invalid("start", text)
}

fn check_sizes(message: &Message) -> Result<(), Failure> {
    let arguments: usize = match &message.command {
        Some(process_spec::Command::Argv(argv)) => argv
            .arguments
            .iter()
            .map(|argument| argument.len() + 1)
            .sum(),
        Some(process_spec::Command::ShellLine(line)) => line.len(),
        Some(process_spec::Command::LoginShell(_)) | None => 0,
    };
    let variables = message.environment.iter();
    let variables: usize = variables
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    if arguments + variables > MAX_STRINGS {
        let text = format!("arguments and environment have more than {MAX_STRINGS} bytes");
        return Err(invalid(text));
    }
    if message.name.len() > MAX_NAME {
        return Err(invalid(format!("name has more than {MAX_NAME} bytes")));
    }
    let long =
        |(name, value): (&String, &String)| name.len() > MAX_LABEL || value.len() > MAX_LABEL;
    if message.labels.len() > MAX_LABELS || message.labels.iter().any(long) {
        let text = format!("labels are more than {MAX_LABELS}, or longer than {MAX_LABEL} bytes");
        return Err(invalid(text));
    }
    Ok(())
}

fn string(field: &str, bytes: Bytes) -> Result<Vec<u8>, Failure> {
    if bytes.contains(&0) {
        return Err(invalid(format!("{field} has a NUL byte")));
    }
    Ok(bytes.into())
}

fn command(command: Option<process_spec::Command>, login: bool) -> Result<Command, Failure> {
    match command {
        None => Err(invalid("command is missing")),
        Some(process_spec::Command::Argv(argv)) => {
            if argv.arguments.is_empty() {
                return Err(invalid("argv is empty"));
            }
            let arguments = argv.arguments.into_iter();
            let arguments = arguments.map(|argument| string("argv", argument));
            Ok(Command::Arguments(arguments.collect::<Result<_, _>>()?))
        }
        Some(process_spec::Command::ShellLine(line)) => Ok(Command::ShellLine {
            line: string("shell_line", line)?,
            login,
        }),
        Some(process_spec::Command::LoginShell(_)) => Ok(Command::LoginShell),
    }
}

fn terminal(terminal: Terminal) -> Result<TerminalSpec, Failure> {
    if terminal.term.contains('\0') {
        return Err(invalid("terminal.term has a NUL byte"));
    }
    let term = match terminal.term.as_bytes() {
        b"" => DEFAULT_TERM,
        term => term,
    };
    let size = match (terminal.columns, terminal.rows) {
        (0, 0) => DEFAULT_SIZE,
        (columns, rows) => size(columns, rows)?,
    };
    Ok(TerminalSpec {
        term: term.into(),
        size,
    })
}

fn size(columns: u32, rows: u32) -> Result<WindowSize, Failure> {
    let fits = |number: u32| {
        u16::try_from(number).map_err(|_| invalid("a terminal has at most 65535 columns and rows"))
    };
    Ok(WindowSize {
        columns: fits(columns)?,
        rows: fits(rows)?,
    })
}

fn timeout(timeout: prost_types::Duration) -> Result<Duration, Failure> {
    Duration::try_from(timeout).map_err(|_| invalid("timeout is negative, or not a duration"))
}

/// Less than a program can start with is a mistake.
fn limits(limits: v1::Limits) -> Result<Limits, Failure> {
    if limits.memory == Some(0) || limits.pids == Some(0) || limits.cpu_millis == Some(0) {
        return Err(invalid("a limit is 0"));
    }
    if limits.memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
        return Err(invalid("limits.memory is less than 256 KiB"));
    }
    // 1 ms in each period of 100 ms is the least that the kernel takes (sched-bwc.rst).
    if limits.cpu_millis.is_some_and(|millis| millis < 10) {
        return Err(invalid("limits.cpu_millis is less than 10"));
    }
    Ok(Limits {
        memory: limits.memory,
        pids: limits.pids,
        cpu_millis: limits.cpu_millis,
    })
}

fn umask(umask: Option<u32>) -> Result<u32, Failure> {
    match umask.unwrap_or(DEFAULT_UMASK) {
        umask @ 0..=0o777 => Ok(umask),
        umask => Err(invalid(format!("umask {umask:o} has bits beyond 777"))),
    }
}

fn leftovers(policy: i32) -> Result<Leftovers, Failure> {
    match LeftoverPolicy::try_from(policy) {
        Ok(LeftoverPolicy::Unspecified) => Ok(Leftovers::Keep),
        Ok(LeftoverPolicy::Kill) => Ok(Leftovers::Kill),
        Err(_) => Err(invalid("leftovers has an unknown value")),
    }
}

#[cfg(test)]
mod tests {
    use guestline_proto::v1::ArgumentVector;

    use guestline_proto::v1::ErrorReason;

    use super::*;

    fn valid() -> Message {
        let arguments = vec![Bytes::from_static(b"true")];
        Message {
            command: Some(process_spec::Command::Argv(ArgumentVector { arguments })),
            ..Message::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut Message)) -> ErrorReason {
        let mut message = valid();
        change(&mut message);
        ProcessSpec::try_from(message)
            .expect_err("it is wrong")
            .reason
    }

    fn argv(arguments: &[&'static [u8]]) -> Option<process_spec::Command> {
        let arguments = arguments
            .iter()
            .map(|&argument| Bytes::from_static(argument));
        Some(process_spec::Command::Argv(ArgumentVector {
            arguments: arguments.collect(),
        }))
    }

    #[test]
    fn what_is_absent_has_the_documented_default() {
        let spec = ProcessSpec::try_from(valid()).unwrap();
        assert_eq!((spec.umask, spec.leftovers), (0o022, Leftovers::Keep));
        assert!(spec.timeout.is_none() && spec.terminal.is_none() && !spec.stdin);
        let terminal = terminal(Terminal::default()).unwrap();
        assert_eq!(terminal.term, b"xterm-256color");
        assert_eq!(terminal.size, DEFAULT_SIZE);
    }

    #[test]
    fn a_wrong_field_is_an_invalid_argument() {
        let refusals = [
            refusal(|spec| spec.command = None),
            refusal(|spec| spec.command = argv(&[])),
            refusal(|spec| spec.command = argv(&[b"echo", b"a\0b"])),
            refusal(|spec| spec.command = argv(&[&[b'a'; MAX_STRINGS]])),
            refusal(|spec| drop(spec.environment.insert("A=B".into(), Bytes::new()))),
            refusal(|spec| drop(spec.environment.insert(String::new(), Bytes::new()))),
            refusal(|spec| {
                let value = Bytes::from_static(b"\0");
                drop(spec.environment.insert("A".into(), value));
            }),
            refusal(|spec| spec.directory = Some(Bytes::from_static(b"/a\0"))),
            refusal(|spec| spec.umask = Some(0o1000)),
            refusal(|spec| spec.leftovers = 9),
            refusal(|spec| spec.name = "n".repeat(MAX_NAME + 1)),
            refusal(|spec| spec.labels = (0..17).map(|n| (n.to_string(), String::new())).collect()),
            refusal(|spec| {
                spec.timeout = Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                });
            }),
        ];
        for (row, reason) in refusals.into_iter().enumerate() {
            assert_eq!(reason, ErrorReason::InvalidArgument, "row {row}");
        }
    }

    #[test]
    fn signals_are_1_to_64_and_never_to_all() {
        let send = |number, target: SignalTarget| {
            let target = target.into();
            signal(SendSignal {
                signal: number,
                target,
            })
        };
        for number in [1, 64] {
            assert!(send(number, SignalTarget::Leader).is_ok());
        }
        for number in [i32::MIN, 0, 65] {
            let failure = send(number, SignalTarget::Leader).unwrap_err();
            assert_eq!(failure.reason, ErrorReason::InvalidArgument);
        }
    }

    #[test]
    fn a_second_start_and_an_empty_message_are_refused() {
        let start = run_request::Message::Start(RunStart::default());
        for message in [None, Some(start)] {
            assert_eq!(
                run_input(RunRequest { message }).unwrap_err().reason,
                ErrorReason::InvalidArgument
            );
        }
    }
}

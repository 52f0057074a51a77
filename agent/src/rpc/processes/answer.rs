//! From the domain to the messages of an answer.

use std::time::Duration;

use bytes::Bytes;
use guestline_proto::v1::{
    AttachLost, AttachOutput, AttachResponse, Exited, GroupUsage, Output, Process, ProcessState,
    RunResponse, Started, Usage, attach_response, exited, output, run_response,
};

use crate::processes::{self, AttachEvent, Event, Exit, ExitStatus, ProcessId, Stream, Summary};

pub(super) fn started(id: ProcessId, pid: i32) -> RunResponse {
    let process_id = id.0;
    let message = Some(run_response::Message::Started(Started { process_id, pid }));
    RunResponse { message }
}

pub(super) fn event(event: Event) -> RunResponse {
    use run_response::Message;
    let message = Some(match event {
        Event::Output(stream, bytes) => Message::Output(output(stream, bytes)),
        Event::Exited(exit) => Message::Exited(exited(exit)),
    });
    RunResponse { message }
}

pub(super) fn attach_event(event: AttachEvent) -> AttachResponse {
    use attach_response::Message;
    let message = Some(match event {
        AttachEvent::Lost { stdout, stderr } => Message::Lost(AttachLost { stdout, stderr }),
        AttachEvent::Output {
            stream,
            offset,
            bytes,
        } => {
            let output = Some(output(stream, bytes));
            Message::Output(AttachOutput { offset, output })
        }
        AttachEvent::Exited(exit) => Message::Exited(exited(exit)),
    });
    AttachResponse { message }
}

fn output(stream: Stream, bytes: Bytes) -> Output {
    let stream = Some(match stream {
        Stream::Stdout => output::Stream::Stdout(bytes),
        Stream::Stderr => output::Stream::Stderr(bytes),
    });
    Output { stream }
}

pub(super) fn process(user: &str, summary: Summary) -> Process {
    let now = summary.now;
    Process {
        process_id: summary.id.0,
        pid: summary.pid,
        command: summary.command.into_iter().map(Into::into).collect(),
        name: summary.name,
        labels: summary.labels.into_iter().collect(),
        started: Some(summary.started.into()),
        exited: summary.exit.map(exited),
        detached: summary.detached,
        stdout_bytes: summary.stdout_bytes,
        stderr_bytes: summary.stderr_bytes,
        user: user.as_bytes().to_vec().into(),
        state: now
            .map_or(ProcessState::Unspecified, |now| state(now.state))
            .into(),
        usage: now.map(|now| usage(now.usage, now.wall_time)),
    }
}

fn exited(exit: Exit) -> Exited {
    let (status, core_dumped) = match exit.status {
        ExitStatus::Code(code) => (exited::Status::Code(code), false),
        ExitStatus::Signal {
            number,
            core_dumped,
        } => (exited::Status::Signal(number), core_dumped),
    };
    Exited {
        status: Some(status),
        core_dumped,
        timed_out: exit.timed_out,
        out_of_memory: exit.group.is_some_and(|group| group.oom_kills > 0),
        usage: Some(usage(exit.usage, exit.wall_time)),
        output_held: exit.output_held,
        survivors: exit.survivors,
        group_usage: exit.group.map(|group| GroupUsage {
            user_time: Some(duration(group.user_time)),
            system_time: Some(duration(group.system_time)),
            memory_peak: group.memory_peak,
        }),
    }
}

fn usage(usage: processes::Usage, wall_time: Duration) -> Usage {
    Usage {
        user_time: Some(duration(usage.user_time)),
        system_time: Some(duration(usage.system_time)),
        wall_time: Some(duration(wall_time)),
        max_resident: usage.max_resident,
    }
}

/// By the letters of proc(5).
fn state(letter: u8) -> ProcessState {
    match letter {
        b'R' => ProcessState::Running,
        b'D' => ProcessState::Waiting,
        b'T' | b't' => ProcessState::Stopped,
        b'Z' | b'X' | b'x' => ProcessState::Exiting,
        _ => ProcessState::Sleeping,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        // 292 billion years.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

//! From the domain to the messages of an answer.

use std::time::Duration;

use guestline_proto::v1::{
    Exited, Output, Process, RunResponse, Usage, exited, output, run_response::Message,
};

use crate::processes::{Event, Exit, ExitStatus, Stream, Summary};

pub(super) fn event(event: Event) -> RunResponse {
    let message = match event {
        Event::Output(stream, bytes) => {
            let stream = match stream {
                Stream::Stdout => output::Stream::Stdout(bytes),
                Stream::Stderr => output::Stream::Stderr(bytes),
            };
            Message::Output(Output {
                stream: Some(stream),
            })
        }
        Event::Exited(exit) => Message::Exited(exited(exit)),
    };
    RunResponse {
        message: Some(message),
    }
}

pub(super) fn process(summary: Summary) -> Process {
    Process {
        process_id: summary.id.0,
        pid: summary.pid,
        command: summary.command.into_iter().map(Into::into).collect(),
        name: summary.name,
        labels: summary.labels.into_iter().collect(),
        started: Some(summary.started.into()),
        exited: summary.exit.map(exited),
        detached: false,
        stdout_bytes: summary.stdout_bytes,
        stderr_bytes: summary.stderr_bytes,
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
        out_of_memory: false,
        usage: Some(Usage {
            user_time: Some(duration(exit.usage.user_time)),
            system_time: Some(duration(exit.usage.system_time)),
            wall_time: Some(duration(exit.wall_time)),
            max_resident: exit.usage.max_resident,
        }),
        output_held: exit.output_held,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        // 292 billion years.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

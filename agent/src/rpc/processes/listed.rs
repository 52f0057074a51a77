//! The answer of List, which has to fit into one message however much was run.

use bytes::Bytes;
use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{ListProcessesResponse, Process},
};
use prost::Message;

/// Bytes of an answer.
const MAX_ANSWER: usize = MAX_MESSAGE_SIZE / 4 * 3;

/// Bytes of a command that labels do not push out.
const MIN_COMMAND: usize = 64;

/// Tag and length of an argument, or of a process in the answer, at the most.
const FRAME: usize = 4;

/// As they are where they fit together; else none takes more than its share, and what tells which one it is stays.
pub(super) fn listed(mut processes: Vec<Process>) -> ListProcessesResponse {
    let size = |process: &Process| process.encoded_len() + FRAME;
    if processes.iter().map(size).sum::<usize>() > MAX_ANSWER {
        let share = MAX_ANSWER / processes.len();
        for process in processes.iter_mut().filter(|process| size(process) > share) {
            shorten(process, share - FRAME);
        }
    }
    ListProcessesResponse { processes }
}

/// Takes from the end of the command, and the labels where they alone are too much.
fn shorten(process: &mut Process, share: usize) {
    let command = std::mem::take(&mut process.command);
    if process.encoded_len() + MIN_COMMAND > share {
        process.labels.clear();
    }
    let mut room = share.saturating_sub(process.encoded_len());
    let kept = command.into_iter().map_while(|mut argument: Bytes| {
        let length = room.checked_sub(FRAME)?;
        argument.truncate(length);
        room -= argument.len() + FRAME;
        Some(argument)
    });
    process.command = kept.collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(process_id: u64, arguments: usize, length: usize, labels: usize) -> Process {
        let text = "x".repeat(128);
        Process {
            process_id,
            pid: i32::MAX,
            command: vec![vec![b'c'; length].into(); arguments],
            name: text.clone(),
            labels: (0..labels)
                .map(|number| (format!("{number:0128}"), text.clone()))
                .collect(),
            stdout_bytes: u64::MAX,
            stderr_bytes: u64::MAX,
            user: vec![b'u'; 32].into(),
            ..Process::default()
        }
    }

    #[test]
    fn what_fits_is_as_it_is() {
        let few: Vec<_> = (0..100).map(|id| process(id, 2, 2048, 16)).collect();
        assert_eq!(listed(few.clone()).processes, few);
    }

    #[test]
    fn as_many_as_there_can_be_fit_and_can_be_told_apart() {
        // One long argument, many short ones, empty ones, and labels that fill the share.
        for (arguments, length, labels) in [(1, 4096, 1), (4096, 1, 1), (4096, 0, 16), (2, 9, 16)] {
            let many = (0..2048).map(|id| process(id, arguments, length, labels));
            let answer = listed(many.collect());
            assert!(answer.encoded_len() <= MAX_ANSWER, "{labels} labels");
            for (id, process) in answer.processes.iter().enumerate() {
                assert_eq!(process.process_id, id as u64);
                assert_eq!(process.name.len(), 128);
                assert!(!process.command.is_empty(), "nothing of the command");
                assert_eq!(process.labels.len(), labels % 16);
            }
        }
    }

    #[test]
    fn one_that_is_short_stays_whole_among_long_ones() {
        let short = process(2000, 2, 9, 0);
        let long = (0..2000).map(|id| process(id, 1, 4096, 0));
        let answer = listed(long.chain([short.clone()]).collect());
        assert_eq!(answer.processes.last(), Some(&short));
    }
}

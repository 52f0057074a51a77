//! The audit log: who did what, where, as whom, and how it ended. One start and one end per operation, as JSON lines in a
//! file and as rows in the store. Never a secret, and never what a file or an output held.
//!
//! ```text
//! guard ─► Operation ──begin(subject)──► start ─┐ audit.jsonl, at once ─► bounded queue ─► writer ─► store
//!              └─ last clone dropped ──► end  ──┘
//! ```
//!
//! An operation keeps a place in the queue for its end from the start on: whatever happens, the end is never lost to a full
//! queue, and a full queue holds up new operations instead of forgetting them. What a killed gateway had begun, the next one
//! on its folder ends, with the result "lost" (`recover.rs`).

mod actor;
mod event;
mod file;
mod operation;
mod recover;
mod writer;

use tokio::sync::mpsc;

pub(crate) use actor::Actor;
pub(crate) use event::{End, Event, Logged, Phase};
pub(crate) use file::{AuditError, LogFile};
pub(crate) use operation::Operation;
pub(crate) use recover::recover;
pub(crate) use writer::AuditWriter;

use crate::metrics::Metrics;

/// Events that wait to be written: a few seconds of a busy gateway, in a few MiB.
const QUEUE: usize = 8192;

/// Takes events. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    log: LogFile,
    queue: mpsc::Sender<Logged>,
    metrics: Metrics,
}

impl Audit {
    /// And the queue, for the writer.
    pub(crate) fn new(log: LogFile, metrics: Metrics) -> (Self, mpsc::Receiver<Logged>) {
        let (queue, events) = mpsc::channel(QUEUE);
        let this = Self {
            log,
            queue,
            metrics,
        };
        (this, events)
    }

    /// An operation that may begin. Waits while the log is full. `None` once the writer is gone, at the very end.
    pub(crate) async fn operation(&self, actor: Actor) -> Option<Operation> {
        let start = self.queue.clone().reserve_owned().await.ok()?;
        let end = self.queue.clone().reserve_owned().await.ok()?;
        let places = [start, end];
        Some(Operation::new(
            actor,
            self.log.clone(),
            self.metrics.clone(),
            places,
        ))
    }

    /// One that was refused with that code: its start and its end.
    pub(crate) async fn refused(&self, actor: Actor, code: &'static str) {
        if let Some(operation) = self.operation(actor).await {
            operation.set_refused(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{operation::ABANDONED, *};
    use crate::{
        ids::{KeyId, OperationId},
        sessions::{Principal, Verb},
        store::to_millis,
    };

    pub(super) fn event(operation: &OperationId, phase: Phase) -> Event {
        let now = SystemTime::now();
        Event {
            time: humantime::format_rfc3339_millis(now).to_string(),
            at_millis: to_millis(now),
            operation: operation.clone(),
            phase,
            verb: "exec".into(),
            admin_key: None,
            identity: None,
            token: None,
            ssh_key: None,
            vm: None,
            user: Some("alice".into()),
            uid: Some(1000),
            subject: Some("make".into()),
            peer: "::1".into(),
            end: (phase == Phase::End).then(End::default),
        }
    }

    fn audit() -> (Audit, mpsc::Receiver<Logged>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::open(folder.path().join("audit.jsonl")).unwrap();
        let (audit, events) = Audit::new(log, Metrics::new());
        (audit, events, folder)
    }

    async fn operation(audit: &Audit) -> Operation {
        let principal = Principal::Admin {
            key: KeyId::random(),
        };
        let actor = Actor::new(&principal, Verb::Exec, Some("vm"), "alice", "::1".into());
        audit.operation(actor).await.unwrap()
    }

    #[tokio::test]
    async fn each_operation_has_one_start_and_one_end() {
        let (audit, mut events, folder) = audit();
        let it = operation(&audit).await;
        let clone = it.clone();
        it.begin("make");
        it.begin("again");
        let file = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
        assert!(file.contains("make"), "it is in the file before it goes on");
        it.set_result("ok");
        drop(it);
        let start = events.recv().await.unwrap().event;
        assert_eq!(
            (start.phase, start.subject.as_deref()),
            (Phase::Start, Some("make"))
        );
        assert!(events.try_recv().is_err(), "it has not ended yet");
        drop(clone);
        let end = events.recv().await.unwrap().event;
        assert_eq!(
            (end.phase, end.end.unwrap().result.as_str()),
            (Phase::End, "ok")
        );
        assert!(events.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_operation_that_nobody_ended_was_abandoned() {
        let (audit, mut events, _folder) = audit();
        drop(operation(&audit).await);
        assert_eq!(events.recv().await.unwrap().event.phase, Phase::Start);
        let end = events.recv().await.unwrap().event.end.unwrap();
        assert_eq!(end.result, ABANDONED);
    }

    #[tokio::test]
    async fn a_full_log_holds_up_new_operations_and_loses_no_end() {
        let (audit, mut events, _folder) = audit();
        let mut held = Vec::new();
        for _ in 0..QUEUE / 2 {
            held.push(operation(&audit).await);
        }
        let late = audit.clone();
        let mut next = tokio::spawn(async move { operation(&late).await });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        held.clear();
        for _ in 0..QUEUE {
            events.recv().await.unwrap();
        }
        (&mut next).await.unwrap();
    }

    #[test]
    fn a_line_holds_no_control_character_and_comes_back_as_it_was() {
        let mut start = event(&OperationId::random(), Phase::Start);
        start.subject = Some("a\nb\u{1b}[2J\u{7f}\u{85}\u{202e}".into());
        let line = start.to_json();
        assert!(
            !line.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{line}"
        );
        let again = Event::from_json(line.as_bytes()).unwrap();
        assert_eq!(
            (again.subject, again.uid, again.at_millis),
            (start.subject, start.uid, start.at_millis)
        );
        let end = event(&start.operation, Phase::End);
        assert!(
            Event::from_json(end.to_json().as_bytes())
                .unwrap()
                .end
                .is_some()
        );
    }
}

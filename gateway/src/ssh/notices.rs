//! What a client asked for and cannot have, in plain words: SSH itself can only say no. Told on the next channel's stderr.

use std::sync::{Mutex, PoisonError};

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// `ssh -R`.
    Listener,
    /// `ssh -A`.
    Agent,
    /// `ssh -X`.
    X11,
}

impl Notice {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Listener => {
                "-R is refused: nothing can listen in the VM on behalf of a client outside"
            }
            Self::Agent => "agent forwarding is refused: your keys stay out of the VM",
            Self::X11 => "X11 forwarding is refused",
        }
    }

    /// Clients ask for an agent and X11 because their configuration says so. That would be noise in a script's stderr.
    fn is_for_people_alone(self) -> bool {
        matches!(self, Self::Agent | Self::X11)
    }
}

/// Those of one connection that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<Vec<Notice>>);

impl Notices {
    pub(super) fn add(&self, notice: Notice) {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    /// What to read now; each once.
    pub(super) fn take(&self, has_terminal: bool) -> Vec<Notice> {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |notice: &mut Notice| has_terminal || !notice.is_for_people_alone();
        notices.extract_if(.., told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_told_once_and_those_for_people_at_a_terminal() {
        let notices = Notices::default();
        for notice in [Notice::Agent, Notice::Listener, Notice::Listener] {
            notices.add(notice);
        }
        assert_eq!(notices.take(false), [Notice::Listener]);
        assert_eq!(notices.take(true), [Notice::Agent]);
        assert!(notices.take(true).is_empty());
    }
}

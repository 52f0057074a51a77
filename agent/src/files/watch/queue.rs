//! Events as they come, and the two halves of a rename put together.

use std::{collections::VecDeque, os::fd::AsFd, os::fd::BorrowedFd};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, Inotify, InotifyEvent},
};

/// How long the second half of a rename may take, in ms, if nothing else comes. The kernel queues both in one step; only a read
/// can fall in between, while whoever renames may lose its processor.
const PATIENCE: u8 = 200;

/// Events that were read, and those still in the kernel.
pub(super) struct EventQueue<'a> {
    inotify: &'a Inotify,
    stop: BorrowedFd<'a>,
    read: VecDeque<InotifyEvent>,
}

impl<'a> EventQueue<'a> {
    pub(super) fn new(inotify: &'a Inotify, stop: BorrowedFd<'a>) -> Self {
        Self {
            inotify,
            stop,
            read: VecDeque::new(),
        }
    }

    /// Waits for the next event; `None` when it is to stop.
    pub(super) fn next(&mut self) -> Result<Option<InotifyEvent>, Errno> {
        while self.read.is_empty() {
            if !self.fill(PollTimeout::NONE)? {
                return Ok(None);
            }
        }
        Ok(self.read.pop_front())
    }

    /// Takes the event that says where a rename led, if it is among those that come next.
    pub(super) fn moved_to(&mut self, cookie: u32) -> Result<Option<InotifyEvent>, Errno> {
        let is_it = |event: &InotifyEvent| {
            event.cookie == cookie && event.mask.contains(AddWatchFlags::IN_MOVED_TO)
        };
        if self.read.is_empty() {
            self.fill(PATIENCE.into())?;
        }
        let at = self.read.iter().position(is_it);
        Ok(at.and_then(|at| self.read.remove(at)))
    }

    /// Whether the next event says the same again.
    pub(super) fn repeats(&self, event: &InotifyEvent) -> bool {
        self.read.front().is_some_and(|next| {
            (next.wd, next.mask, &next.name) == (event.wd, event.mask, &event.name)
        })
    }

    /// Reads what is there, or waits for it; false when it is to stop.
    fn fill(&mut self, timeout: PollTimeout) -> Result<bool, Errno> {
        let mut ready = [
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop, PollFlags::POLLIN),
        ];
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => return Ok(true),
            polled => polled?,
        };
        // POLLHUP where the other end was closed.
        if ready[1].any().unwrap_or(true) {
            return Ok(false);
        }
        match self.inotify.read_events() {
            Ok(events) => self.read.extend(events),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(true)
    }
}

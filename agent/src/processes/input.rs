//! What the client writes, on its way into the program.
//!
//! One chunk may wait in the pipe's place and one behind it; then the client's messages are not read on, so that
//! signals and resizes pass one blocked chunk, and memory stays bounded.

use std::{collections::VecDeque, io, os::fd::OwnedFd};

use bytes::{Buf, Bytes};
use nix::unistd::write;
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys::readiness;

/// The chunk being written and the one behind it.
const MAX_CHUNKS: usize = 2;

/// VEOF of a new terminal's settings, ^D: ends the input of a program that reads lines, at a line's beginning.
const END_OF_FILE: &[u8] = b"\x04";

/// The program's stdin, or what is left of it.
#[derive(Debug)]
pub(super) struct Stdin {
    /// `None`: closed, here or there; more is dropped without an error.
    sink: Option<AsyncFd<OwnedFd>>,
    terminal: bool,
    chunks: VecDeque<Bytes>,
    closing: bool,
}

impl Stdin {
    pub(super) fn new(descriptor: Option<OwnedFd>, terminal: bool) -> io::Result<Self> {
        let sink = descriptor.map(|descriptor| readiness::watch(descriptor, Interest::WRITABLE));
        Ok(Self {
            sink: sink.transpose()?,
            terminal,
            chunks: VecDeque::new(),
            closing: false,
        })
    }

    /// Whether another message may be taken from the client.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.len() < MAX_CHUNKS
    }

    /// Whether [`Stdin::flush`] has something to do.
    pub(super) fn is_pending(&self) -> bool {
        self.sink.is_some() && !self.chunks.is_empty()
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.sink.is_some() && !self.closing && !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// Closes it behind what waits. A terminal cannot be half-closed: it gets ^D, as from a keyboard.
    pub(super) fn close(&mut self) {
        if self.terminal {
            self.push(Bytes::from_static(END_OF_FILE));
        }
        self.closing = true;
        self.close_if_done();
    }

    /// Forgets it, with what waits.
    pub(super) fn abandon(&mut self) {
        self.sink = None;
        self.chunks.clear();
    }

    /// Writes some of what waits. Cancel-safe: nothing is taken off before it is written.
    pub(super) async fn flush(&mut self) {
        let (Some(sink), Some(chunk)) = (&self.sink, self.chunks.front_mut()) else {
            return;
        };
        let written = sink
            .async_io(Interest::WRITABLE, |descriptor| {
                write(descriptor, chunk).map_err(io::Error::from)
            })
            .await;
        match written {
            Ok(bytes) => {
                chunk.advance(bytes);
                if chunk.is_empty() {
                    self.chunks.pop_front();
                }
                self.close_if_done();
            }
            // EPIPE, or EIO of a terminal: the program closed its end.
            Err(_) => self.abandon(),
        }
    }

    fn close_if_done(&mut self) {
        if self.closing && self.chunks.is_empty() && !self.terminal {
            self.sink = None;
        }
    }
}

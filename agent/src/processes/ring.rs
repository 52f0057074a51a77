//! The last bytes of an output, by their offsets from its beginning.

use std::collections::VecDeque;

use crate::switches;

/// Keeps at most `capacity` bytes; older ones make room for newer ones.
#[derive(Debug)]
pub(super) struct Ring {
    kept: VecDeque<u8>,
    capacity: usize,
    /// The offset of the first kept byte.
    start: u64,
}

impl Ring {
    /// Takes no memory before there is something to keep.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            capacity,
            start: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bound = match switches::is_off("ring bound") {
            true => usize::MAX,
            false => self.capacity,
        };
        let surplus = (self.kept.len() + bytes.len()).saturating_sub(bound);
        let old = surplus.min(self.kept.len());
        self.kept.drain(..old);
        self.start += surplus as u64;
        let new = &bytes[surplus - old..];
        // Doubles, as a vector does, but not beyond the capacity.
        if self.kept.len() + new.len() > self.kept.capacity() {
            let doubled = (self.kept.capacity() * 2).clamp(self.kept.len() + new.len(), bound);
            self.kept.reserve_exact(doubled - self.kept.len());
        }
        self.kept.extend(new);
    }

    /// The offset of the oldest kept byte.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The offset behind the newest byte: how many there were in all.
    pub(super) fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    /// At most `limit` bytes from an offset on, which must be one between [`Ring::start`] and [`Ring::end`].
    pub(super) fn read(&self, offset: u64, limit: usize) -> Vec<u8> {
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let to = self.kept.len().min(from.saturating_add(limit));
        self.kept.range(from..to).copied().collect()
    }

    /// Nothing more will come: gives back the room for it.
    pub(super) fn finish(&mut self) {
        self.kept.shrink_to_fit();
        self.capacity = self.kept.len();
    }

    /// How many bytes it holds, or may come to hold.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept_under_their_offsets() {
        let mut ring = Ring::new(8);
        ring.push(b"0123");
        assert_eq!((ring.start(), ring.end()), (0, 4));
        assert_eq!(ring.read(1, 2), b"12");
        ring.push(b"456789");
        assert_eq!((ring.start(), ring.end()), (2, 10));
        assert_eq!(ring.read(2, 100), b"23456789");
        assert_eq!(ring.read(10, 100), b"");
    }

    #[test]
    fn a_push_beyond_the_capacity_keeps_its_own_end() {
        let mut ring = Ring::new(4);
        ring.push(b"01");
        ring.push(b"23456789");
        assert_eq!((ring.start(), ring.end()), (6, 10));
        assert_eq!(ring.read(6, 4), b"6789");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut ring = Ring::new(1000);
        for _ in 0..100 {
            ring.push(&[0; 77]);
        }
        assert!(ring.kept.capacity() <= 1000);
        let mut ring = Ring::new(1 << 20);
        ring.push(b"x");
        ring.finish();
        assert_eq!((ring.capacity(), ring.end()), (1, 1));
        assert!(ring.kept.capacity() < 1024);
    }
}

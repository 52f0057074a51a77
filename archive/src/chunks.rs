//! A stream in pieces: how what is packed leaves as messages, and how messages become what is unpacked.

use std::io::{self, Read, Write};

/// Collects what is written into chunks of one size, and sends each.
#[derive(Debug)]
pub struct Chunks<F> {
    size: usize,
    buffer: Vec<u8>,
    send: F,
}

impl<F: FnMut(Vec<u8>) -> bool> Chunks<F> {
    /// `send` says whether anybody still wants more.
    pub fn new(size: usize, send: F) -> Self {
        Self {
            size,
            buffer: Vec::new(),
            send,
        }
    }
}

impl<F: FnMut(Vec<u8>) -> bool> Write for Chunks<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(self.size);
        }
        let room = self.size - self.buffer.len();
        let length = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..length]);
        if length == room {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() || (self.send)(std::mem::take(&mut self.buffer)) {
            return Ok(());
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// What comes next of a stream.
#[derive(Debug)]
pub enum Piece<B> {
    /// More of it.
    Data(B),
    /// It was whole.
    End,
    /// There is no more, and it was not whole.
    Cut,
}

/// Pieces as one stream of bytes, which ends well with [`Piece::End`] alone.
#[derive(Debug)]
pub struct Pieces<B, F> {
    next: F,
    current: Option<B>,
    /// How much of it was read.
    at: usize,
    ended: bool,
}

impl<B: AsRef<[u8]>, F: FnMut() -> Piece<B>> Pieces<B, F> {
    /// `next` blocks until there is something.
    pub fn new(next: F) -> Self {
        Self {
            next,
            current: None,
            at: 0,
            ended: false,
        }
    }
}

impl<B: AsRef<[u8]>, F: FnMut() -> Piece<B>> Read for Pieces<B, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let current = self.current.as_ref().map_or(&[][..], AsRef::as_ref);
            let rest = &current[self.at..];
            let length = rest.len().min(buffer.len());
            if length > 0 || self.ended || buffer.is_empty() {
                buffer[..length].copy_from_slice(&rest[..length]);
                self.at += length;
                return Ok(length);
            }
            self.at = 0;
            self.current = None;
            match (self.next)() {
                Piece::Data(data) => self.current = Some(data),
                Piece::End => self.ended = true,
                Piece::Cut => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_chunks_of_one_size_and_come_back_whole() {
        let mut sent = Vec::new();
        let mut chunks = Chunks::new(7, |chunk| {
            sent.push(chunk);
            true
        });
        let content: Vec<u8> = (0..100).collect();
        for part in content.chunks(9) {
            chunks.write_all(part).unwrap();
        }
        chunks.flush().unwrap();
        drop(chunks);
        assert!(sent[..14].iter().all(|chunk| chunk.len() == 7) && sent[14].len() == 2);
        for whole in [true, false] {
            let mut queue = sent.clone().into_iter();
            let mut pieces = Pieces::new(|| match queue.next() {
                Some(data) => Piece::Data(data),
                None if whole => Piece::End,
                None => Piece::Cut,
            });
            let mut back = Vec::new();
            assert_eq!(pieces.read_to_end(&mut back).is_ok(), whole);
            assert_eq!(back, content);
        }
    }

    #[test]
    fn nobody_who_wants_more_is_an_error() {
        let mut chunks = Chunks::new(4, |_| false);
        assert!(chunks.write_all(b"12345").is_err());
    }
}

//! Small writes that leave together. HTTP/2 as hyper has it writes the head of a call, lets its body's task run, and writes
//! the body: two packets, for each of which the guest wakes up. Here a small write waits until all tasks that are ready
//! have had their turn, and leaves with what they wrote.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More leaves at once: then it is not the packet that costs.
const MOST: usize = 16 * 1024;

/// A stream whose small writes wait for each other. What waits leaves at the next turn of the task that flushes.
#[derive(Debug)]
pub(crate) struct Corked<T> {
    io: T,
    waiting: Vec<u8>,
    /// How much of it has left.
    left: usize,
    /// The others have had their turn.
    yielded: bool,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            waiting: Vec::new(),
            left: 0,
            yielded: false,
        }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.waiting.len() {
            let rest = &self.waiting[self.left..];
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.left += written,
            }
        }
        self.waiting.clear();
        self.left = 0;
        self.yielded = false;
        Poll::Ready(Ok(()))
    }

    fn has_room(&self, size: usize) -> bool {
        self.waiting.len() + size <= MOST
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size = slices.iter().map(|slice| slice.len()).sum();
        if self.has_room(size) {
            slices
                .iter()
                .for_each(|slice| self.waiting.extend_from_slice(slice));
            return Poll::Ready(Ok(size));
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() && !self.yielded {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_together_and_in_order() {
        let (ours, mut theirs) = duplex(1 << 20);
        let mut corked = Corked::new(ours);
        corked.write_all(b"head").await.unwrap();
        corked.write_all(b" and body").await.unwrap();
        let mut buffer = [0; 64];
        let nothing = std::future::poll_fn(|context| {
            let mut read = ReadBuf::new(&mut buffer);
            Poll::Ready(
                Pin::new(&mut theirs)
                    .poll_read(context, &mut read)
                    .is_pending(),
            )
        });
        assert!(nothing.await);
        corked.flush().await.unwrap();
        assert_eq!(theirs.read(&mut buffer).await.unwrap(), 13);
        assert_eq!(&buffer[..13], b"head and body");
        // A large one waits for nobody, but for what came before it.
        corked.write_all(b"small").await.unwrap();
        corked.write_all(&vec![7; 2 * MOST]).await.unwrap();
        let mut all = vec![0; 5 + 2 * MOST];
        theirs.read_exact(&mut all).await.unwrap();
        assert!(all.starts_with(b"small\x07"));
        drop(corked);
        assert_eq!(theirs.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_ends_leaves_nothing_behind() {
        let (ours, mut theirs) = duplex(64);
        let mut corked = Corked::new(ours);
        corked.write_all(b"last words").await.unwrap();
        corked.shutdown().await.unwrap();
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last words");
    }
}

//! A plain connection to a vsock port of the guest, the way that the agent's endpoint goes, for the peers that have no
//! library of their own.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use anyhow::{Context, bail, ensure};
use guestline_client::Endpoint;
use vsock::{VsockAddr, VsockStream};

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Socket {
    /// By the host's kernel.
    Kernel(VsockStream),
    /// Through the VMM's Unix socket.
    Hybrid(UnixStream),
}

impl Socket {
    /// Connects to another port of the guest behind the agent's endpoint.
    pub(crate) fn connect(endpoint: &Endpoint, port: u32) -> anyhow::Result<Self> {
        match endpoint {
            Endpoint::Vsock { cid, .. } => {
                let stream = VsockStream::connect(&VsockAddr::new(*cid, port));
                Ok(Self::Kernel(stream.context("cannot connect to the guest")?))
            }
            Endpoint::Hybrid { path, .. } => {
                let mut stream = UnixStream::connect(path).context("cannot connect to the VMM")?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                let (mut line, mut byte) = (Vec::new(), [0]);
                while byte[0] != b'\n' {
                    stream
                        .read_exact(&mut byte)
                        .with_context(|| format!("nobody listens on port {port} in the guest"))?;
                    line.extend(byte);
                }
                ensure!(line.starts_with(b"OK"), "the VMM answered {line:?}");
                Ok(Self::Hybrid(stream))
            }
            Endpoint::Unix { .. } => bail!("the raw baseline needs a machine"),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(stream) => stream.read(buffer),
            Self::Hybrid(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(stream) => stream.write(bytes),
            Self::Hybrid(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kernel(stream) => stream.as_fd(),
            Self::Hybrid(stream) => stream.as_fd(),
        }
    }
}

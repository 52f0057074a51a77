//! Whether an agent answers: the hello as root, and its `ok`, or in a machine with a secret its refusal of a hello without
//! one. The protocol itself is the client's.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use vsock::{VsockAddr, VsockStream};

const HELLO: &[u8] = b"guestline/1 user=root\n";
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_LINE: usize = 1024;

/// Where a machine's agent is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vsock {
    /// By the host's kernel.
    Kernel { cid: u32 },
    /// By a Unix socket that speaks `CONNECT port`.
    Hybrid { path: std::path::PathBuf },
}

/// What a hello without a secret gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No agent yet, or one that has nobody to be root.
    None,
    /// It is let in.
    Open,
    /// The agent wants a proof of the secret.
    Closed,
}

impl Vsock {
    /// In the client's words.
    pub(crate) fn endpoint(&self, port: u32) -> String {
        match self {
            Self::Kernel { cid } => format!("vsock:{cid}:{port}"),
            Self::Hybrid { path } => format!("hybrid:{}:{port}", path.display()),
        }
    }

    /// One try.
    pub(crate) fn ask(&self, port: u32) -> Answer {
        let answer = match self {
            Self::Kernel { cid } => ask_kernel(*cid, port),
            Self::Hybrid { path } => ask_hybrid(path, port),
        };
        match answer {
            Ok(line) if line.starts_with(b"ok ") => Answer::Open,
            Ok(line) if line.starts_with(b"error unauthenticated ") => Answer::Closed,
            Ok(_) | Err(_) => Answer::None,
        }
    }
}

fn ask_kernel(cid: u32, port: u32) -> io::Result<Vec<u8>> {
    let mut stream = VsockStream::connect(&VsockAddr::new(cid, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(HELLO)?;
    read_line(&mut stream)
}

fn ask_hybrid(path: &Path, port: u32) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    if !read_line(&mut stream)?.starts_with(b"OK ") {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.write_all(HELLO)?;
    read_line(&mut stream)
}

fn read_line(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
    Err(io::ErrorKind::InvalidData.into())
}

//! What is said on a connection before HTTP/2: the VMM's `CONNECT`, our hello, the proofs of the VM's secret. A line each way
//! at a time, each bounded, and never a byte more than the line; the caller bounds the time.

use std::{io, sync::Arc};

use guestline_proto::{
    hello::{Hello, HelloError, MAX_LINE, Reply, Username},
    proof::{HostExchange, Nonce},
    secret::Secret,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ConnectError, Io, socket_error};
use crate::shown::printable;

/// The longest answer to CONNECT: `OK` and a port take 14 bytes, and this leaves room for a VMM's words.
const MAX_CONNECT_ANSWER: usize = 128;

/// `CONNECT port` and its `OK …`, no byte more.
pub(crate) async fn connect_through(
    stream: &mut (impl Io + ?Sized),
    port: u32,
) -> Result<(), ConnectError> {
    // A VMM that closes under our write may have said why before.
    let request = format!("CONNECT {port}\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let line = match read_line(stream, MAX_CONNECT_ANSWER).await {
        Ok(line) => line,
        Err(LineError::Closed) => return Err(ConnectError::NobodyInGuest),
        Err(LineError::TooLong(start)) => return Err(ConnectError::Handshake(printable(&start))),
        Err(LineError::Io(error)) => return Err(socket_error(error)),
    };
    match line.strip_prefix(b"OK") {
        Some(rest) if rest.is_empty() || rest[0] == b' ' => Ok(()),
        _ => Err(ConnectError::Handshake(printable(&line))),
    }
}

/// The hello and its reply, no byte more; the uid that the agent made of us. With a secret, the proofs of both sides too.
pub(crate) async fn greet(
    stream: &mut (impl Io + ?Sized),
    user: Username,
    secret: Option<&Secret>,
) -> Result<u32, ConnectError> {
    let Some(secret) = secret else {
        let hello = Hello { user, nonce: None }.to_line();
        let line = exchange(stream, &hello).await?;
        return accepted(&line);
    };
    let nonce = Nonce::random().map_err(|error| ConnectError::NoRandom(Arc::new(error.into())))?;
    let (mut proof, hello) = HostExchange::begin(user, secret.clone(), nonce);
    let challenge = exchange(stream, &hello).await?;
    let answer = match proof.answer(&challenge) {
        Ok(answer) => answer,
        // A refusal says why. An agent that lets us in at once has proved nothing.
        Err(error) => {
            accepted(&challenge)?;
            return Err(ConnectError::Unproven(error));
        }
    };
    let line = exchange(stream, &answer).await?;
    let uid = accepted(&line)?;
    proof.check(&line).map_err(ConnectError::Unproven)?;
    Ok(uid)
}

/// Sends a line, and gives the one that comes back.
async fn exchange(stream: &mut (impl Io + ?Sized), line: &str) -> Result<Vec<u8>, ConnectError> {
    // A peer that refuses before it reads may close under our write; its words are still there to be read.
    let sent = stream.write_all(line.as_bytes()).await;
    match (read_line(stream, MAX_LINE).await, sent) {
        (Ok(line), _) => Ok(line),
        (Err(LineError::Closed), Ok(())) => Err(ConnectError::Closed),
        (Err(LineError::TooLong(_)), _) => Err(ConnectError::NotAnAgent(HelloError::NotAReply)),
        (Err(LineError::Io(error)), _) | (Err(LineError::Closed), Err(error)) => {
            Err(socket_error(error))
        }
    }
}

/// The uid of a reply that is an `ok`.
fn accepted(line: &[u8]) -> Result<u32, ConnectError> {
    match Reply::parse(line).map_err(ConnectError::NotAnAgent)? {
        Reply::Ok { uid, .. } => Ok(uid),
        Reply::Refused { reason, text } => {
            let text = printable(text.as_bytes());
            Err(ConnectError::Refused { reason, text })
        }
    }
}

#[derive(Debug)]
pub(super) enum LineError {
    Closed,
    TooLong(Vec<u8>),
    Io(io::Error),
}

/// A line without its `\n`. Byte by byte, because what follows belongs to HTTP/2.
pub(super) async fn read_line(
    stream: &mut (impl Io + ?Sized),
    max: usize,
) -> Result<Vec<u8>, LineError> {
    let mut line = Vec::with_capacity(64);
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(line),
            Ok(_) if line.len() + 1 >= max => return Err(LineError::TooLong(line)),
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(LineError::Closed);
            }
            Err(error) => return Err(LineError::Io(error)),
        }
    }
}

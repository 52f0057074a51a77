//! Who has the VM's secret: a mutual challenge and response (HMAC-SHA256, RFC 2104) in the hello of a VM that has one.
//!
//! ```text
//! host   guestline/1 user=alice nonce=NH\n                         NH, NA: 32 random bytes each, in hexadecimal
//! agent  challenge nonce=NA\n
//! host   answer proof=PH\n                                         PH: the host has the secret
//! agent  ok version=0.1.0 uid=1000 proof=PA\n                      PA: so has the agent. Then HTTP/2
//!
//! PH = HMAC(secret, "guestline/1 host\n"  + the first two lines)
//! PA = HMAC(secret, "guestline/1 agent\n" + the first three lines + the fourth up to " proof=")
//! ```
//!
//! A proof covers the very bytes of all lines before it, so that nothing said in them can be another's: not the user, not a
//! nonce, not a word of a later version. Each side draws a nonce, so that neither can be shown an old conversation; and each
//! direction has its label, so that a proof thrown back proves nothing. The host is first, and the agent shows nothing
//! made with the secret to one that has not got it.
//!
//! This is about the connection's beginning alone. The bytes that follow are neither encrypted nor signed.
//!
//! No I/O happens here: the listener and the client send and receive the lines.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::{
    hello::{Hello, MAX_LINE, PROTOCOL, Reply, Username, find},
    secret::Secret,
};

const HOST: &str = "host";
const AGENT: &str = "agent";

/// Bytes of a nonce: none is drawn twice by chance.
const NONCE_LENGTH: usize = 32;

/// A number used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// A new one, of the system's random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; NONCE_LENGTH];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse_hexadecimal(text).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

/// Why the other side did not prove that it has the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The line is not the one that comes next.
    #[error("expected a line \"{0}\"")]
    Unexpected(&'static str),
    /// It has not got the secret, or something between changed a line.
    #[error("the proof is wrong")]
    Wrong,
}

/// The host's side.
#[derive(Debug)]
pub struct HostExchange {
    secret: Secret,
    lines: Vec<u8>,
}

impl HostExchange {
    /// Also gives the hello, with its `\n`.
    pub fn begin(user: Username, secret: Secret, nonce: Nonce) -> (Self, String) {
        let nonce = Some(nonce);
        let hello = Hello { user, nonce }.to_line();
        let lines = hello.clone().into_bytes();
        (Self { secret, lines }, hello)
    }

    /// From the agent's challenge, without its `\n`, to the line that answers it.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<String, ProofError> {
        let expected = ProofError::Unexpected("challenge nonce=…");
        word(challenge, "challenge", "nonce")
            .and_then(Nonce::parse)
            .ok_or(expected)?;
        push_line(&mut self.lines, challenge);
        let proof = mac(&self.secret, HOST, &self.lines).finalize();
        let answer = format!("answer proof={}\n", hexadecimal(&proof.into_bytes()));
        self.lines.extend_from_slice(answer.as_bytes());
        Ok(answer)
    }

    /// Whether the agent's `ok`, without its `\n`, proves that it has the secret too.
    pub fn check(&self, ok: &[u8]) -> Result<(), ProofError> {
        let expected = ProofError::Unexpected("ok version=… uid=… proof=…");
        let text = std::str::from_utf8(ok).map_err(|_| expected)?;
        let (said, proof) = text.rsplit_once(" proof=").ok_or(expected)?;
        if !said.starts_with("ok ") {
            return Err(expected);
        }
        let proof: [u8; 32] = parse_hexadecimal(proof).ok_or(expected)?;
        mac(&self.secret, AGENT, &self.lines)
            .chain_update(said)
            .verify_slice(&proof)
            .map_err(|_| ProofError::Wrong)
    }
}

/// The agent's side, once it has a hello with a nonce.
#[derive(Debug)]
pub struct AgentExchange {
    lines: Vec<u8>,
}

impl AgentExchange {
    /// From the hello, without its `\n`, to the challenge, with its `\n`.
    pub fn challenge(hello: &[u8], nonce: Nonce) -> (Self, String) {
        let challenge = format!("challenge nonce={nonce}\n");
        let mut lines = Vec::with_capacity(2 * MAX_LINE);
        push_line(&mut lines, hello);
        lines.extend_from_slice(challenge.as_bytes());
        (Self { lines }, challenge)
    }

    /// Whether the host's answer, without its `\n`, proves that it has one of the secrets. It takes the same time whichever.
    pub fn check(mut self, secrets: &[Secret], answer: &[u8]) -> Result<Proven, ProofError> {
        let proof: [u8; 32] = word(answer, "answer", "proof")
            .and_then(parse_hexadecimal)
            .ok_or(ProofError::Unexpected("answer proof=…"))?;
        let mut proven = None;
        for secret in secrets {
            let right = mac(secret, HOST, &self.lines).verify_slice(&proof).is_ok();
            if right {
                proven = Some(secret);
            }
        }
        let secret = proven.cloned().ok_or(ProofError::Wrong)?;
        push_line(&mut self.lines, answer);
        let lines = self.lines;
        Ok(Proven { secret, lines })
    }
}

/// The agent's side when the host has proved that it has the secret.
#[derive(Debug)]
pub struct Proven {
    secret: Secret,
    lines: Vec<u8>,
}

impl Proven {
    /// The reply with its `\n`. An `ok` gets the agent's own proof.
    pub fn seal(&self, reply: &Reply) -> String {
        let line = reply.to_line();
        let (Reply::Ok { .. }, Some(said)) = (reply, line.strip_suffix('\n')) else {
            return line;
        };
        let proof = mac(&self.secret, AGENT, &self.lines)
            .chain_update(said)
            .finalize();
        format!("{said} proof={}\n", hexadecimal(&proof.into_bytes()))
    }
}

fn mac(secret: &Secret, side: &str, lines: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    #[allow(clippy::expect_used)]
    Hmac::new_from_slice(secret.expose().as_bytes())
        .expect("a key of any length")
        .chain_update(format!("{PROTOCOL} {side}\n"))
        .chain_update(lines)
}

fn push_line(lines: &mut Vec<u8>, line: &[u8]) {
    lines.extend_from_slice(line);
    lines.push(b'\n');
}

/// The value of a word in a line that begins with this one.
fn word<'a>(line: &'a [u8], first: &str, key: &str) -> Option<&'a str> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next() == Some(first)).then_some(())?;
    find(words, key)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly so many bytes, in digits and small letters.
fn parse_hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;

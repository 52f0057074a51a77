//! SFTP (version 3, with OpenSSH's extensions) on the agent's Files: what a client may read, write and change is what the
//! guest's kernel lets its user.
//!
//! ```text
//! channel ─► packets (wire, request) ─► service ─► Files in the guest
//!                                         └─► handles ─► file: offsets ─► streams
//! ```
//!
//! Requests are done one after the other, in order, as OpenSSH's own server does them; a client sends many without waiting,
//! and reads and writes in a row go through one stream.

mod answer;
mod attributes;
mod file;
mod handles;
mod paths;
mod request;
mod service;
mod status;
mod wire;

use bytes::{Bytes, BytesMut};

use super::{
    access::{Access, Permitted},
    client::{Client, Gone},
    failure::Failure,
    inbox::{Inbox, Request},
};
use crate::sessions::Verb;
use answer::Answer;
use paths::Paths;
use request::Packet;
use service::Service;
use status::{Code, Status};

/// Answers that are sent together, while there are requests to be answered.
const BATCH: usize = 64 * 1024;

/// A client that breaks the protocol is told so, and its session ends.
const BROKEN: &str = "this is no SFTP of version 3";

/// Serves a session to its end.
pub(super) async fn serve(inbox: &mut Inbox, client: &Client, access: &Access) {
    let mut permitted = match access.begin(Verb::Sftp, None).await {
        Ok(permitted) => permitted,
        Err(failure) => {
            let _ = client.failed(&failure).await;
            return;
        }
    };
    match run(inbox, client, access, &permitted).await {
        Ok(Ok(())) => {
            permitted.set_result("ok");
            let _ = client.succeeded().await;
        }
        Ok(Err(failure)) => {
            permitted.set_result(failure.code);
            let _ = client.failed(&failure).await;
        }
        Err(Gone) => {}
    }
}

/// Until the client ends it.
async fn run(
    inbox: &mut Inbox,
    client: &Client,
    access: &Access,
    permitted: &Permitted,
) -> Result<Result<(), Failure>, Gone> {
    let reached = match access.reach(permitted).await {
        Ok(reached) => reached,
        Err(failure) => return Ok(Err(failure)),
    };
    let home = match reached.guest.system().info().await {
        Ok(info) => info.identity.home,
        Err(error) => return Ok(Err(error.into())),
    };
    let paths = Paths::new(reached.workdir(), home);
    let mut service = Service::new(access, reached.guest.files(), paths);
    let mut incoming = BytesMut::new();
    let mut answers = BytesMut::new();
    loop {
        loop {
            let packet = match wire::next_packet(&mut incoming) {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(wire::NoPacket) => return Ok(Err(Failure::new("BAD_REQUEST", BROKEN))),
            };
            let answer = match Packet::read(packet.clone()) {
                Ok(Packet::Init) => answer::version(),
                Ok(Packet::Request(number, request)) => {
                    service.answer(request).await.to_packet(number)
                }
                Err(wire::Short) => refused(&packet),
            };
            answers.extend_from_slice(&answer);
            if answers.len() >= BATCH {
                client.stdout(answers.split().freeze()).await?;
            }
        }
        if !answers.is_empty() {
            client.stdout(answers.split().freeze()).await?;
        }
        match inbox.next().await.ok_or(Gone)? {
            Request::Data(data) => incoming.extend_from_slice(&data),
            Request::Eof => return Ok(Ok(())),
            _ => {}
        }
    }
}

/// To a packet that ends too early: with the number of its request, if it has that much.
fn refused(packet: &Bytes) -> Bytes {
    let number = packet.get(1..5).and_then(|it| it.try_into().ok());
    let number = number.map_or(0, u32::from_be_bytes);
    let status = Status::new(Code::BadMessage, "the packet is too short");
    Answer::Status(status).to_packet(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_packet_is_answered_with_its_number() {
        let answer = refused(&Bytes::from_static(&[5, 0, 0, 1, 2]));
        assert_eq!(answer[5..9], [0, 0, 1, 2]);
        assert_eq!(answer[9..13], 5_u32.to_be_bytes());
    }
}

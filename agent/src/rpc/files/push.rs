//! The push call: the first message says where to, the others are the bytes of a tar stream.

use guestline_proto::v1::{PushRequest, PushResponse, push_request::Message};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{
    convert::Home,
    feed::{Part, feed},
};
use crate::{
    files::{
        Piece,
        archive::{self, OutsideLinks, Pieces, Root, UnpackOptions},
    },
    rpc::{blocking::Deadline, status::Failure},
    switches,
};

/// Takes one push from its first message to its end.
pub(super) async fn receive(
    home: &Home,
    deadline: Deadline,
    mut messages: impl Stream<Item = Result<PushRequest, Status>> + Unpin,
) -> Result<PushResponse, Status> {
    let first = messages.next().await.transpose()?;
    let Some(Message::Start(start)) = first.and_then(|request| request.message) else {
        return Err(Failure::invalid("push", "the first message is not `start`").into());
    };
    let path = home.path("path", &start.path)?;
    let options = UnpackOptions {
        owners: start.owners,
        outside_links: match start.outside_links {
            true => OutsideLinks::Keep,
            false => OutsideLinks::Refuse,
        },
        // Modes are exact.
        mask: 0,
    };
    let unpacked = feed("push", deadline, messages, part, move |mut queue| {
        let below = |error: archive::Error| error.below(&path);
        let root = Root::open(&path, start.parents).map_err(below)?;
        let bytes = Pieces::new(|| match queue.blocking_recv() {
            Some(Piece::Data(data)) => {
                switches::point("push: receiving");
                archive::Piece::Data(data)
            }
            Some(Piece::Finish(_)) => archive::Piece::End,
            None => archive::Piece::Cut,
        });
        switches::point("push: opened");
        let unpacked = archive::unpack(&root, options, bytes, &mut ()).map_err(below)?;
        switches::point("push: unpacked");
        Ok(unpacked)
    });
    let unpacked = unpacked.await?;
    Ok(PushResponse {
        entries: unpacked.entries,
        bytes: unpacked.bytes,
    })
}

fn part(request: PushRequest) -> Part {
    match request.message {
        Some(Message::Start(_)) => Part::Start,
        Some(Message::Data(data)) => Part::Data(data),
        Some(Message::Finish(_)) => Part::Finish(0),
        None => Part::Nothing,
    }
}

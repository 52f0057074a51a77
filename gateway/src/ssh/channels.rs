//! The open channels of a connection, as its callbacks see them: where requests go, and whether they still can.

use std::collections::HashMap;

use bytes::Bytes;
use russh::{
    Channel, ChannelId,
    server::{Msg, Session},
};
use thiserror::Error;

use super::{
    client::Client,
    inbox::{Flooded, Inbox, Post, Request, inbox, pause_after, window},
};

/// What ends a connection.
#[derive(Debug, Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error(transparent)]
    Flooded(#[from] Flooded),
}

/// Those of one connection.
#[derive(Debug, Default)]
pub(super) struct Channels(HashMap<ChannelId, Open>);

#[derive(Debug)]
struct Open {
    post: Post,
    /// A channel runs one thing, once.
    is_running: bool,
}

impl Channels {
    /// A new channel's two ends. russh's own queue is not used: its loop would wait for it.
    pub(super) fn open(&mut self, channel: Channel<Msg>, session: &Session) -> (Inbox, Client) {
        // One that was refused is never closed.
        self.0.retain(|_, open| !open.post.is_over());
        let (post, inbox) = inbox();
        let open = Open {
            post,
            is_running: false,
        };
        self.0.insert(channel.id(), open);
        let (_, write) = channel.split();
        (inbox, Client::new(write, session.handle()))
    }

    pub(super) fn close(&mut self, channel: ChannelId) {
        self.0.remove(&channel);
    }

    /// Takes what comes before something runs, and answers. `None`: it is refused.
    pub(super) fn prepare(
        &mut self,
        channel: ChannelId,
        request: Option<Request>,
        session: &mut Session,
    ) -> Result<(), ChannelError> {
        self.answer(channel, request, false, session)
    }

    /// The same for what runs.
    pub(super) fn start(
        &mut self,
        channel: ChannelId,
        request: Option<Request>,
        session: &mut Session,
    ) -> Result<(), ChannelError> {
        self.answer(channel, request, true, session)
    }

    fn answer(
        &mut self,
        channel: ChannelId,
        request: Option<Request>,
        starts: bool,
        session: &mut Session,
    ) -> Result<(), ChannelError> {
        let open = self.0.get_mut(&channel).filter(|open| !open.is_running);
        match (open, request) {
            (Some(open), Some(request)) => {
                open.is_running = starts;
                open.post.put(request)?;
                Ok(session.channel_success(channel)?)
            }
            _ => Ok(session.channel_failure(channel)?),
        }
    }

    /// Takes what has no answer.
    pub(super) fn put(&self, channel: ChannelId, request: Request) -> Result<(), ChannelError> {
        match self.0.get(&channel) {
            Some(open) => Ok(open.post.put(request)?),
            None => Ok(()),
        }
    }

    /// Takes data, and holds up a client whose window is closed.
    pub(super) async fn take(&self, channel: ChannelId, data: &[u8]) -> Result<(), ChannelError> {
        if let Some(open) = self.0.get(&channel) {
            open.post.put(Request::Data(Bytes::copy_from_slice(data)))?;
            pause_after(data.len(), &open.post).await;
        }
        Ok(())
    }

    /// What windows are refilled to.
    pub(super) fn window(&self) -> u32 {
        window(self.0.values().map(|open| &open.post))
    }
}

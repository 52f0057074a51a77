//! What russh asks while it serves a connection. Each answer is at once: what takes time is a task of the channel's own.

use std::sync::Arc;

use bytes::Bytes;
use guestline_client::ForwardTarget;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty, Sig,
    server::{
        Auth, ChannelOpenHandle, Handler as Callbacks, Msg, PublicKeyOffer, Response, Session,
        VerifiedPublicKey,
    },
};

use super::{
    channels::{ChannelError, Channels},
    connection::Connection,
    forward,
    inbox::Request,
    login::Logins,
    notices::Notice,
    session::{has_subsystem, size, takes_value, takes_variable},
};

/// What can be tried again.
const METHODS: [MethodKind; 3] = [
    MethodKind::PublicKey,
    MethodKind::Password,
    MethodKind::KeyboardInteractive,
];

/// One connection's callbacks.
pub(super) struct Handler {
    connection: Arc<Connection>,
    logins: Logins,
    channels: Channels,
}

pub(super) fn methods() -> MethodSet {
    MethodSet::from(&METHODS[..])
}

impl Handler {
    pub(super) fn new(connection: Arc<Connection>, logins: Logins) -> Self {
        Self {
            connection,
            logins,
            channels: Channels::default(),
        }
    }

    async fn answer(&self, session: Option<crate::sessions::Session>) -> Auth {
        let refused = Auth::Reject {
            proceed_with_methods: Some(methods()),
            partial_success: false,
        };
        if let Some(session) = session {
            return match self.connection.log_in(session).await {
                true => Auth::Accept,
                false => refused,
            };
        }
        if self.logins.has_failed {
            self.connection.note_failure();
        }
        refused
    }

    fn forward(
        &mut self,
        target: ForwardTarget,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &Session,
    ) {
        let (inbox, client) = self.channels.open(channel, session);
        // With too many channels the reply is dropped, which refuses.
        self.connection.open(inbox.closed(), |access| {
            forward::serve(target, inbox, client, reply, access)
        });
    }
}

impl Callbacks for Handler {
    type Error = ChannelError;

    async fn auth_none(&mut self, name: &str) -> Result<Auth, Self::Error> {
        let session = self.logins.with_secret(name, None).await;
        Ok(self.answer(session).await)
    }

    async fn auth_password(&mut self, name: &str, password: &str) -> Result<Auth, Self::Error> {
        let session = self.logins.with_secret(name, Some(password)).await;
        Ok(self.answer(session).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        name: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Token: ".into(), false)].into(),
            });
        };
        let password = response.next().unwrap_or_default();
        let password = String::from_utf8_lossy(&password).into_owned();
        let session = self.logins.with_secret(name, Some(&password)).await;
        Ok(self.answer(session).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        name: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        match self.logins.would_take(name, offer.public_key).await {
            true => Ok(Auth::Accept),
            false => Ok(self.answer(None).await),
        }
    }

    async fn auth_publickey(
        &mut self,
        name: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let session = self.logins.with_key(name, key.public_key).await;
        Ok(self.answer(session).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (inbox, client) = self.channels.open(channel, session);
        let notices = self.connection.notices().clone();
        let opened = self.connection.open(inbox.closed(), |access| {
            super::session::serve(inbox, client, access, notices)
        });
        match opened {
            true => reply.accept().await,
            false => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match forward::tcp(host, port) {
            Some(target) => self.forward(target, channel, reply, session),
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.forward(forward::unix(path), channel, reply, session);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.close(channel);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.put(channel, Request::Eof)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.take(channel, data).await
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.channels.window()
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (columns, rows) = size(columns, rows);
        let wanted = takes_value(term).then(|| Request::Terminal {
            term: term.into(),
            columns,
            rows,
        });
        self.channels.prepare(channel, wanted, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let wanted = takes_variable(name, value).then(|| Request::Variable {
            name: name.into(),
            value: value.into(),
        });
        self.channels.prepare(channel, wanted, session)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.start(channel, Some(Request::Shell), session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let wanted = Request::Command(Bytes::copy_from_slice(line));
        self.channels.start(channel, Some(wanted), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let wanted = has_subsystem(name).then_some(Request::Sftp);
        self.channels.start(channel, wanted, session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (columns, rows) = size(columns, rows);
        self.channels
            .put(channel, Request::Resize { columns, rows })
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.put(channel, Request::Signal(signal))
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.connection.notices().add(Notice::X11);
        Ok(session.channel_failure(channel)?)
    }

    async fn agent_request(
        &mut self,
        _channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.connection.notices().add(Notice::Agent);
        Ok(false)
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.connection.notices().add(Notice::Listener);
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        _path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.connection.notices().add(Notice::Listener);
        Ok(false)
    }
}

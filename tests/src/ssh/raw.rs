//! A client that does what OpenSSH's cannot be told to: many channels, signals, sizes, names of 64 KiB.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use russh::{
    Channel, ChannelMsg,
    client::{self, AuthResult, Handle, Msg},
    keys::PublicKeyOrCertificate,
};

/// A connection that has not logged in.
pub(super) struct Raw(pub(super) Handle<Anybody>);

/// Takes any host key: whether it is the right one, OpenSSH's clients see to.
pub(super) struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// How a program ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) stdout: String,
    pub(super) code: Option<u32>,
    /// As SSH names it.
    pub(super) signal: Option<String>,
}

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let config = Arc::new(client::Config::default());
        Ok(Self(client::connect(config, address, Anybody).await?))
    }

    /// With a secret in the name.
    pub(super) async fn log_in(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let mut this = Self::connect(address).await?;
        let answer = this.0.authenticate_none(name).await?;
        anyhow::ensure!(matches!(answer, AuthResult::Success), "not logged in");
        Ok(this)
    }

    pub(super) async fn session(&self) -> anyhow::Result<Channel<Msg>> {
        self.0
            .channel_open_session()
            .await
            .context("no session channel")
    }
}

/// Until the channel's end.
pub(super) async fn finish(mut channel: Channel<Msg>) -> Finished {
    let mut finished = Finished::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                finished.stdout.push_str(&String::from_utf8_lossy(&data));
            }
            ChannelMsg::ExitStatus { exit_status } => finished.code = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                finished.signal = Some(format!("{signal_name:?}"));
            }
            _ => {}
        }
    }
    finished
}

/// Reads until a text has come.
pub(super) async fn read_until(channel: &mut Channel<Msg>, text: &str) -> anyhow::Result<String> {
    let mut read = String::new();
    while !read.contains(text) {
        match channel.wait().await.context("the channel ended")? {
            ChannelMsg::Data { data } => read.push_str(&String::from_utf8_lossy(&data)),
            _ => continue,
        }
    }
    Ok(read)
}

//! The way back to a client's channel: its output, its errors, how it ended. What is written waits for the channel's own
//! window, so that a client that does not read holds up this channel alone.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use guestline_client::ExitStatus;
use russh::{
    ChannelId, ChannelWriteHalf,
    server::{Handle, Msg},
};

use super::{failure::Failure, signals};

/// SSH_EXTENDED_DATA_STDERR, RFC 4254, 5.2.
const STDERR: u32 = 1;

/// What ssh(1) itself exits with when something other than the program failed.
const FAILED: u32 = 255;

/// The client went away, or its channel did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// A channel's other half.
#[derive(Debug)]
pub(super) struct Client {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    /// It was told that no more comes, which is told once.
    has_ended: AtomicBool,
}

impl Client {
    pub(super) fn new(write: ChannelWriteHalf<Msg>, handle: Handle) -> Self {
        Self {
            write,
            handle,
            has_ended: AtomicBool::new(false),
        }
    }

    fn id(&self) -> ChannelId {
        self.write.id()
    }

    /// Comes between the reply that opens the channel and anything else. russh has a queue of its own for such replies, and
    /// drops what it takes from the other before a channel is open; what follows this nothing cannot overtake the reply.
    pub(super) async fn opened(&self) -> Result<(), Gone> {
        let sent = self.handle.data(self.id(), Bytes::new()).await;
        sent.map_err(|_| Gone)
    }

    pub(super) async fn stdout(&self, data: Bytes) -> Result<(), Gone> {
        self.write.data_bytes(data).await.map_err(|_| Gone)
    }

    pub(super) async fn stderr(&self, data: Bytes) -> Result<(), Gone> {
        let sent = self.write.extended_data_bytes(STDERR, data).await;
        sent.map_err(|_| Gone)
    }

    /// A line of the gateway's own, on stderr. A terminal in raw mode wants the carriage return.
    pub(super) async fn say(&self, text: &str) -> Result<(), Gone> {
        let line: String = text.chars().filter(|it| !it.is_control()).collect();
        self.stderr(format!("guestline: {line}\r\n").into()).await
    }

    /// How the program ended. The last but [`Client::close`].
    pub(super) async fn exited(&self, status: &ExitStatus) -> Result<(), Gone> {
        if status.out_of_memory {
            self.say("the VM ran out of memory and ended the program")
                .await?;
        }
        let told = match (status.code, status.signal) {
            (_, Some(signal)) => {
                let (name, core) = (signals::named(signal), status.core_dumped);
                let (text, language) = (String::new(), String::new());
                self.handle
                    .exit_signal_request(self.id(), name, core, text, language)
                    .await
            }
            (code, None) => {
                let code = u32::try_from(code.unwrap_or_default()).unwrap_or(FAILED);
                self.handle.exit_status_request(self.id(), code).await
            }
        };
        told.map_err(|()| Gone)
    }

    /// Says why it does not work, and that it failed.
    pub(super) async fn failed(&self, failure: &Failure) -> Result<(), Gone> {
        self.say(&failure.text).await?;
        let told = self.handle.exit_status_request(self.id(), FAILED).await;
        told.map_err(|()| Gone)
    }

    /// A program that ended well, where there is none.
    pub(super) async fn succeeded(&self) -> Result<(), Gone> {
        let told = self.handle.exit_status_request(self.id(), 0).await;
        told.map_err(|()| Gone)
    }

    pub(super) async fn eof(&self) -> Result<(), Gone> {
        match self.has_ended.swap(true, Ordering::Relaxed) {
            true => Ok(()),
            false => self.write.eof().await.map_err(|_| Gone),
        }
    }

    /// Ends the channel.
    pub(super) async fn close(&self) {
        let _ = self.eof().await;
        let _ = self.write.close().await;
    }
}

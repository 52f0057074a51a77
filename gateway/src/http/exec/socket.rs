//! `GET /v1/vms/{vm}/exec`, a WebSocket: a program with its stdin, its terminal and its output as they come. Not part of the
//! SDK's contract; under the same grants.
//!
//! ```text
//! client                               gateway
//!   │  {"command": "bash", "terminal": {"columns": 80, "rows": 24}}   what to run, first
//!   │ ───────────────────────────────────────► │
//!   │ ◄─────────────── {"type": "started", …}  │
//!   │ ◄──────────────────────── 1 or 2, bytes  │  stdout or stderr
//!   │  bytes ────────────────────────────────► │  stdin
//!   │  {"type": "resize" | "signal" | "closeStdin", …}
//!   │ ◄──────────────── {"type": "exited", …}  │  and it closes; {"type": "failed", …} where it cannot go on
//! ```
//!
//! A client that goes away ends the program. A page can set no headers on a WebSocket: there the token and the Linux user
//! are subprotocols (`guard.rs`).

use std::time::Duration;

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection},
    },
    http::Method,
    response::IntoResponse,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use guestline_client::{Child, Event, ExitStatus, Input, SignalTarget};

use super::{
    exec_error, status_code,
    words::{self, Start, Told, Word},
};
use crate::{
    http::{
        app::App,
        error::{ApiError, Code},
        guard::{EXEC_PROTOCOL, EndsLater, Permitted},
        table::{Answer, Table},
    },
    sessions::Verb,
};

/// The first message must come within this time: until then the connection holds a place for nothing.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Of one message: a chunk of stdin, and more than any sensible command line.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Between two pings: proxies close what is silent for a minute, and a peer that is gone is found out.
const PING: Duration = Duration::from_secs(30);

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::GET,
            "/v1/vms/{vm_id}/exec",
            Verb::Exec,
            "A WebSocket: run a program with stdin, a terminal and live output",
            exec,
        )
        .speaks::<Start, Word, Told>();
}

async fn exec(
    State(app): State<App>,
    permitted: Permitted,
    upgrade: Result<WebSocketUpgrade, rejection::WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|error| {
        let text = format!("this is a WebSocket: {error}");
        ApiError::new(Code::BadRequest, text)
    })?;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .protocols([EXEC_PROTOCOL]);
    let mut response = upgrade
        .on_upgrade(move |socket| serve(app, permitted, socket))
        .into_response();
    response.extensions_mut().insert(EndsLater);
    Ok(response)
}

/// A client that does not read is not told how it ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How a conversation ended.
enum Ended {
    Exited(ExitStatus),
    /// The client closed, or its connection broke.
    Abandoned,
}

async fn serve(app: App, permitted: Permitted, socket: WebSocket) {
    let (mut sender, mut receiver) = socket.split();
    let (last, code) = match converse(&app, &permitted, &mut sender, &mut receiver).await {
        Ok(Ended::Exited(status)) => {
            permitted.operation.set_exit_status(status_code(&status));
            permitted.operation.set_result("ok");
            (Told::exited(&status).to_message(), close_code::NORMAL)
        }
        // The log says "abandoned" of what nobody ended.
        Ok(Ended::Abandoned) => return,
        Err(error) => {
            permitted.operation.set_result(error.code().as_str());
            (words::failed(&error), close_code::ERROR)
        }
    };
    // The operation is over, and its end need not wait for the client.
    drop(permitted);
    let close = CloseFrame {
        code,
        reason: Default::default(),
    };
    let telling = async {
        sender.send(last).await?;
        sender.send(Message::Close(Some(close))).await?;
        // To its own close: what is left unread here would reset the connection under what it has not read yet.
        while let Some(Ok(_)) = receiver.next().await {}
        Ok::<(), axum::Error>(())
    };
    // Nobody there to hear it is no failure of ours.
    let _ = tokio::time::timeout(CLOSE_LIMIT, telling).await;
}

async fn converse(
    app: &App,
    permitted: &Permitted,
    sender: &mut SplitSink<WebSocket, Message>,
    receiver: &mut SplitStream<WebSocket>,
) -> Result<Ended, ApiError> {
    let lease = app.live.lease(&permitted.session);
    let first = tokio::select! {
        first = first_message(receiver) => first?,
        cut = lease.cut() => return Err(cut.into()),
    };
    let Some(start) = first else {
        return Ok(Ended::Abandoned);
    };
    permitted.operation.begin(start.subject());
    let running = async {
        let guest = app.guest(permitted).await?;
        let command = start.to_command(guest.vm(), guest.workdir())?;
        let mut child = command.spawn().await.map_err(exec_error)?;
        let input = child.input();
        tokio::select! {
            ended = tell(&mut child, sender, permitted) => ended,
            ended = listen(&input, receiver, permitted) => ended,
        }
    };
    tokio::select! {
        ended = running => ended,
        cut = lease.cut() => Err(cut.into()),
    }
}

/// `None`: it closed instead.
async fn first_message(receiver: &mut SplitStream<WebSocket>) -> Result<Option<Start>, ApiError> {
    let first = async {
        loop {
            match receiver.next().await {
                Some(Ok(Message::Text(text))) => return words::parse(&text).map(Some),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    let text = "the first message says what to run, as JSON in a text message";
                    return Err(ApiError::new(Code::BadRequest, text));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        }
    };
    tokio::time::timeout(START_LIMIT, first)
        .await
        .unwrap_or_else(|_| {
            let text = format!("nobody said within {START_LIMIT:?} what to run");
            Err(ApiError::new(Code::BadRequest, text))
        })
}

/// From the guest to the client. A client that does not read stalls this program alone.
async fn tell(
    child: &mut Child,
    sender: &mut SplitSink<WebSocket, Message>,
    permitted: &Permitted,
) -> Result<Ended, ApiError> {
    let mut pings = tokio::time::interval(PING);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut message = Told::Started { pid: child.pid() }.to_message();
    loop {
        if sender.send(message).await.is_err() {
            return Ok(Ended::Abandoned);
        }
        let event = tokio::select! {
            event = child.event() => event?,
            _ = pings.tick() => {
                message = Message::Ping(Default::default());
                continue;
            }
        };
        message = match event {
            Event::Stdout(data) => {
                permitted.operation.add_bytes_out(data.len());
                words::stdout(&data)
            }
            Event::Stderr(data) => {
                permitted.operation.add_bytes_out(data.len());
                words::stderr(&data)
            }
            Event::Exited(status) => return Ok(Ended::Exited(status)),
        };
    }
}

/// From the client to the guest, until the client goes.
async fn listen(
    input: &Input,
    receiver: &mut SplitStream<WebSocket>,
    permitted: &Permitted,
) -> Result<Ended, ApiError> {
    loop {
        match receiver.next().await {
            Some(Ok(Message::Binary(data))) => {
                permitted.operation.add_bytes_in(data.len());
                input.write(data).await;
            }
            Some(Ok(Message::Text(text))) => match words::parse(&text)? {
                Word::Resize { columns, rows } => {
                    words::check_size(columns, rows)?;
                    input.resize(columns, rows).await;
                }
                Word::Signal { signal } => input.signal(signal, SignalTarget::Group).await,
                Word::CloseStdin => input.close().await,
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(Ended::Abandoned),
        }
    }
}

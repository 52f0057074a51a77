//! Terminals that outlive their clients: programs of the guest with a pseudo-terminal, which go on when nobody listens, and
//! whose last output the guest keeps. They are detached programs of the session's user (`guestline-client`'s `Processes`) with
//! a label; the gateway keeps nothing of them, so every gateway has them all, and so has `guestline ps`.
//!
//! A terminal's name is its user's: alice and bob may both have a `build`.

mod guest;
mod text;
mod words;

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::Method,
};
use guestline_client::{Attached, Offsets, Process, SignalTarget};
use tokio::time::timeout;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code},
    exec::{check_size, exec_error},
    guard::Permitted,
    identities::Empty,
    table::Table,
};
use crate::{ids::TerminalId, machines::AwakeGuest, sessions::Verb};
use guest::{
    Kept, all, end_of, exists, exit, find, is_named, is_open, kill, missing, must_be_open,
    must_find, read, say, signal,
};
use words::{
    Line, Logs, NewTerminal, Screen, Terminal, TerminalInput, TerminalSize, Terminals, check_name,
};

/// What makes a program a terminal; its value is the name.
const LABEL: &str = "guestline.terminal";

/// Bytes of its output that the guest keeps: some ten thousand lines.
const KEPT: u64 = 1024 * 1024;

/// What is kept is there at once; a guest that takes longer is not well.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Between the hang-up and the end of what does not heed it.
const HANG_UP: Duration = Duration::from_secs(2);
const SIGHUP: i32 = 1;

pub(super) fn add(table: &mut Table) {
    const TERMINALS: &str = "/v1/vms/{vm_id}/terminals";
    const TERMINAL: &str = "/v1/vms/{vm_id}/terminals/{terminal_id}";
    const LOGS: &str = "/v1/vms/{vm_id}/terminals/{terminal_id}/logs";
    const SCREEN: &str = "/v1/vms/{vm_id}/terminals/{terminal_id}/xterm-256color";
    const INPUT: &str = "/v1/vms/{vm_id}/terminals/{terminal_id}/input";
    const RESIZE: &str = "/v1/vms/{vm_id}/terminals/{terminal_id}/resize";
    let verb = Verb::Terminals;
    table
        .add(Method::GET, TERMINALS, verb, "The user's terminals", list)
        .answers::<Terminals>();
    table
        .add(Method::POST, TERMINALS, verb, "Open a terminal", create)
        .takes::<NewTerminal>()
        .answers::<Terminal>();
    table
        .add(Method::GET, TERMINAL, verb, "A terminal", get)
        .answers::<Terminal>();
    table
        .add(Method::DELETE, TERMINAL, verb, "End a terminal", end)
        .answers::<Empty>();
    table
        .add(Method::GET, LOGS, verb, "A terminal's lines", logs)
        .answers::<Logs>();
    table
        .add(
            Method::GET,
            SCREEN,
            verb,
            "What a terminal was written, with its escape sequences",
            screen,
        )
        .answers::<Screen>();
    table
        .add(Method::POST, INPUT, verb, "Type into a terminal", input)
        .takes::<TerminalInput>()
        .answers::<Empty>();
    table
        .add(Method::POST, RESIZE, verb, "Resize a terminal", resize)
        .takes::<TerminalSize>()
        .answers::<Empty>();
}

async fn list(State(app): State<App>, permitted: Permitted) -> Result<Json<Terminals>, ApiError> {
    permitted.operation.begin("list");
    let guest = app.guest(&permitted).await?;
    let found = all(&guest.vm().processes()).await?;
    let terminals = found.iter().filter_map(Terminal::of).collect();
    Ok(Json(Terminals { terminals }))
}

async fn create(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(new): JsonBody<NewTerminal>,
) -> Result<Json<Terminal>, ApiError> {
    let name = match &new.name {
        Some(name) => name.clone(),
        None => TerminalId::random().as_str().into(),
    };
    let line = new.command.as_deref().unwrap_or("the login shell");
    permitted.operation.begin(format!("open {name}: {line}"));
    check_name(&name)?;
    let guest = app.guest(&permitted).await?;
    let command = new.to_command(&guest, &name)?;
    let processes = guest.vm().processes();
    if find(&processes, &name)
        .await?
        .is_some_and(|it| is_open(&it))
    {
        return Err(exists(&name));
    }
    let started = command.start(Some(KEPT)).await.map_err(exec_error)?;
    // Of two who opened it at once, the first has it.
    let all = all(&processes).await?;
    let ours = |it: &&Process| it.process_id == started.process_id;
    let first = all.iter().find(|it| is_named(it, &name) && is_open(it));
    if first.is_some_and(|first| !ours(&first)) {
        kill(&processes, started.process_id).await?;
        return Err(exists(&name));
    }
    let made = all.iter().find(ours).and_then(Terminal::of);
    let made = made.ok_or_else(|| ApiError::new(Code::Internal, "the terminal is gone"))?;
    Ok(Json(made))
}

async fn get(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Terminal>, ApiError> {
    permitted.operation.begin(format!("look at {name}"));
    let guest = app.guest(&permitted).await?;
    let found = must_find(&guest.vm().processes(), &name).await?;
    let terminal = Terminal::of(&found).ok_or_else(|| missing(&name))?;
    Ok(Json(terminal))
}

async fn end(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Empty>, ApiError> {
    permitted.operation.begin(format!("end {name}"));
    let guest = app.guest(&permitted).await?;
    let processes = guest.vm().processes();
    let found = must_be_open(&processes, &name).await?;
    let id = found.process_id;
    signal(&processes, id, SIGHUP, SignalTarget::Group).await?;
    let attached = processes.attach(id, end_of(&found)).await?;
    if timeout(HANG_UP, exit(attached)).await.is_err() {
        kill(&processes, id).await?;
    }
    Ok(Json(Empty {}))
}

async fn logs(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Logs>, ApiError> {
    permitted.operation.begin(format!("lines of {name}"));
    let kept = kept(&app, &permitted, &name).await?;
    let lines = text::lines(&kept.bytes, kept.is_cut).into_iter();
    let logs = lines.map(|line| Line {
        line,
        timestamp: None,
    });
    Ok(Json(Logs {
        logs: logs.collect(),
    }))
}

async fn screen(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Screen>, ApiError> {
    permitted.operation.begin(format!("screen of {name}"));
    let kept = kept(&app, &permitted, &name).await?;
    Ok(Json(Screen {
        output: String::from_utf8_lossy(&kept.bytes).into_owned(),
    }))
}

async fn input(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
    JsonBody(typed): JsonBody<TerminalInput>,
) -> Result<Json<Empty>, ApiError> {
    permitted.operation.begin(format!("type into {name}"));
    let data = typed.into_bytes()?;
    let length = data.len();
    let (_guest, attached) = way_in(&app, &permitted, &name).await?;
    // From here on they may be typed, whatever becomes of the request.
    permitted.operation.add_bytes_in(length);
    let input = attached.input();
    let otherwise = format!("up to {length} bytes of it may have been typed");
    let typing = async { input.write(data).await };
    say(attached, &name, typing, &otherwise).await?;
    Ok(Json(Empty {}))
}

async fn resize(
    State(app): State<App>,
    Path((_, name)): Path<(String, String)>,
    permitted: Permitted,
    JsonBody(size): JsonBody<TerminalSize>,
) -> Result<Json<Empty>, ApiError> {
    let TerminalSize { columns, rows } = size;
    let subject = format!("resize {name} to {columns}x{rows}");
    permitted.operation.begin(subject);
    check_size(columns, rows)?;
    let (_guest, attached) = way_in(&app, &permitted, &name).await?;
    let input = attached.input();
    let otherwise = "the terminal may have its new size";
    let resizing = async { input.resize(columns, rows).await };
    say(attached, &name, resizing, otherwise).await?;
    Ok(Json(Empty {}))
}

/// The way into a terminal that is open, behind all that it was written.
async fn way_in(
    app: &App,
    permitted: &Permitted,
    name: &str,
) -> Result<(AwakeGuest, Attached), ApiError> {
    let guest = app.guest(permitted).await?;
    let processes = guest.vm().processes();
    let found = must_be_open(&processes, name).await?;
    let attached = processes.attach(found.process_id, end_of(&found)).await?;
    Ok((guest, attached))
}

async fn kept(app: &App, permitted: &Permitted, name: &str) -> Result<Kept, ApiError> {
    let guest = app.guest(permitted).await?;
    let processes = guest.vm().processes();
    let found = must_find(&processes, name).await?;
    let attached = processes.attach(found.process_id, Offsets::default()).await;
    let reading = read(attached?, found.stdout_bytes);
    let kept = timeout(READ_LIMIT, reading).await.unwrap_or_else(|_| {
        let text = "the VM did not give the terminal's output in time";
        Err(ApiError::new(Code::VmNotResponsive, text))
    })?;
    permitted.operation.add_bytes_out(kept.bytes.len());
    Ok(kept)
}

//! Programs over the exec WebSocket: stdin, terminals, signals, and who may.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};

use super::{Caller, Gateway, World, text};
use crate::{eventually::eventually, gateway_cases, runner::Outcome};

gateway_cases![
    a_program_reads_what_is_sent_and_tells_its_streams_apart,
    a_terminal_has_its_size_and_gets_another,
    the_login_shell_and_an_argv_are_run_as_they_are,
    a_signal_reaches_the_program_and_its_end_is_told,
    a_client_that_goes_away_ends_the_program,
    a_page_may_put_token_and_user_into_subprotocols,
    who_may_not_gets_no_socket: [34],
    what_is_no_message_is_a_clear_error,
    a_revoked_token_cuts_the_socket: [35],
    a_gateway_that_ends_cuts_the_socket_and_says_so,
    much_output_arrives_whole_before_the_exit,
];

/// For what happens at once on an idle machine.
const SOON: Duration = Duration::from_secs(60);

/// A conversation with a program.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Everything up to the last message.
#[derive(Debug, Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    last: Value,
}

impl Said {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Socket {
    async fn open(caller: &Caller, vm: &str, start: Value) -> anyhow::Result<Self> {
        let mut this = Self::connect(caller, vm).await?;
        this.tell(start).await?;
        Ok(this)
    }

    async fn connect(caller: &Caller, vm: &str) -> anyhow::Result<Self> {
        let request = caller.request(reqwest::Method::GET, &format!("/v1/vms/{vm}/exec"));
        let request = request.build()?;
        let url = request.url().as_str().replacen("http", "ws", 1);
        let mut upgrade = url.into_client_request()?;
        for (name, value) in request.headers() {
            upgrade.headers_mut().insert(name, value.clone());
        }
        Ok(Self(connect_async(upgrade).await?.0))
    }

    async fn tell(&mut self, word: Value) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(word.to_string())).await?)
    }

    async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.send(Message::binary(bytes.to_vec())).await?)
    }

    /// Adds what comes next; `true` for the last message.
    async fn next(&mut self, said: &mut Said) -> anyhow::Result<bool> {
        let message = timeout(SOON, self.0.next()).await.context("silence")?;
        match message.context("it closed without a word")?? {
            Message::Text(words) => {
                said.last = serde_json::from_str(&words)?;
                Ok(said.last["type"] != "started")
            }
            Message::Binary(bytes) => {
                match bytes.split_first() {
                    Some((1, data)) => said.stdout.extend_from_slice(data),
                    Some((2, data)) => said.stderr.extend_from_slice(data),
                    other => bail!("a message of no stream: {other:?}"),
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    async fn end(mut self) -> anyhow::Result<Said> {
        let mut said = Said::default();
        while !self.next(&mut said).await? {}
        let close = timeout(SOON, self.0.next()).await.context("no close")?;
        ensure!(
            matches!(close, Some(Ok(Message::Close(Some(_))))),
            "{close:?}"
        );
        Ok(said)
    }

    async fn until(&mut self, text: &str) -> anyhow::Result<Said> {
        let mut said = Said::default();
        while !said.stdout().contains(text) {
            ensure!(!self.next(&mut said).await?, "it ended: {said:?}");
        }
        Ok(said)
    }
}

async fn alice(world: &mut World) -> anyhow::Result<(Gateway, String, Caller)> {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    Ok((gateway, vm, token.user("alice")))
}

async fn a_program_reads_what_is_sent_and_tells_its_streams_apart(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    let start = json!({"command": "cat; echo err >&2; id -un; exit 3", "stdin": true});
    let mut socket = Socket::open(&alice, &vm, start).await?;
    socket.send(b"one ").await?;
    socket.send(b"two\n").await?;
    socket.until("one two\n").await?;
    socket.tell(json!({"type": "closeStdin"})).await?;
    let said = socket.end().await?;
    ensure!(
        said.stdout() == "alice\n" && said.stderr == b"err\n",
        "{said:?}"
    );
    ensure!(
        said.last["type"] == "exited" && said.last["statusCode"] == 3,
        "{}",
        said.last
    );
    // Without stdin there is nothing to read, and nothing hangs.
    let said = Socket::open(&alice, &vm, json!({"command": "cat"})).await?;
    ensure!(said.end().await?.last["statusCode"] == 0);
    Ok(())
}

async fn a_terminal_has_its_size_and_gets_another(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    let start = json!({
        "command": "stty size; echo $TERM; read line; stty size; tty",
        "terminal": {"columns": 91, "rows": 37},
    });
    let mut socket = Socket::open(&alice, &vm, start).await?;
    socket.until("37 91\r\nxterm-256color\r\n").await?;
    socket
        .tell(json!({"type": "resize", "columns": 100, "rows": 20}))
        .await?;
    socket.send(b"\n").await?;
    let said = socket.end().await?;
    ensure!(
        said.stdout().contains("20 100") && said.stdout().contains("/dev/pts/"),
        "{said:?}"
    );
    let wrong = json!({"command": "true", "terminal": {"columns": 0, "rows": 1}});
    let said = Socket::open(&alice, &vm, wrong).await?.end().await?;
    ensure!(
        said.last["type"] == "failed" && said.last["code"] == "BAD_REQUEST",
        "{}",
        said.last
    );
    Ok(())
}

async fn the_login_shell_and_an_argv_are_run_as_they_are(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    let argv = json!({
        "argv": ["printf", "%s|", "a b", "$HOME", "*"], "workdir": "/", "env": {"X": "y"},
    });
    let said = Socket::open(&alice, &vm, argv).await?.end().await?;
    ensure!(said.stdout() == "a b|$HOME|*|", "{said:?}");
    let mut shell = Socket::open(&alice, &vm, json!({"stdin": true})).await?;
    shell.send(b"id -un; pwd; exit 4\n").await?;
    let said = shell.end().await?;
    ensure!(
        said.stdout() == "alice\n/home/alice\n" && said.last["statusCode"] == 4,
        "{said:?}"
    );
    let missing = json!({"argv": ["no-such-program"]});
    let said = Socket::open(&alice, &vm, missing).await?.end().await?;
    ensure!(said.last["code"] == "BAD_REQUEST", "{}", said.last);
    Ok(())
}

async fn a_signal_reaches_the_program_and_its_end_is_told(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    let start = json!({"command": "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"});
    let mut socket = Socket::open(&alice, &vm, start).await?;
    socket.until("ready").await?;
    socket.tell(json!({"type": "signal", "signal": 15})).await?;
    let said = socket.end().await?;
    ensure!(said.stdout().contains("caught"), "{said:?}");
    ensure!(
        said.last["statusCode"] == 9 && said.last["signal"] == Value::Null,
        "{}",
        said.last
    );
    let start = json!({"command": "sleep 4323 & sleep 4323", "timeoutMs": 300});
    let said = Socket::open(&alice, &vm, start).await?.end().await?;
    ensure!(
        said.last["timedOut"] == true && said.last["signal"].is_i64(),
        "{}",
        said.last
    );
    Ok(())
}

async fn a_client_that_goes_away_ends_the_program(world: &mut World) -> Outcome {
    let (gateway, vm, alice) = alice(world).await?;
    let start = json!({"command": "echo $$; sleep 4322", "stdin": true});
    let mut socket = Socket::open(&alice, &vm, start).await?;
    socket.until("\n").await?;
    drop(socket);
    eventually("the program is gone", SOON, async || {
        let left = alice.exec(&vm, "pgrep -f '^sleep 4322'").await?.ok()?;
        Ok(left["statusCode"] == 1)
    })
    .await?;
    let admin = gateway.admin()?;
    eventually("its end is in the log", SOON, async || {
        let events = admin.get(&format!("/v1/audit?vm={vm}")).await?.ok()?;
        let mut events = events["events"].as_array().into_iter().flatten();
        Ok(events.any(|event| event["result"] == "abandoned" && event["phase"] == "end"))
    })
    .await
}

async fn a_page_may_put_token_and_user_into_subprotocols(world: &mut World) -> Outcome {
    let (gateway, vm, alice) = alice(world).await?;
    let url = format!(
        "{}/v1/vms/{vm}/exec",
        gateway.url().replacen("http", "ws", 1)
    );
    let with = async |protocols: String| {
        let mut upgrade = url.as_str().into_client_request()?;
        let value = HeaderValue::try_from(protocols)?;
        upgrade
            .headers_mut()
            .insert("sec-websocket-protocol", value);
        anyhow::Ok(connect_async(upgrade).await?)
    };
    let secret = alice.secret();
    let (stream, answer) = with(format!(
        "guestline.exec.v1, guestline.token.{secret}, guestline.user.alice"
    ))
    .await?;
    ensure!(answer.headers()["sec-websocket-protocol"] == "guestline.exec.v1");
    let mut socket = Socket(stream);
    socket.tell(json!({"command": "id -un"})).await?;
    ensure!(socket.end().await?.stdout() == "alice\n");
    let refused = with(format!("guestline.exec.v1, guestline.token.{secret}")).await;
    ensure!(status(refused.err())? == 403, "root is not in the grant");
    Ok(())
}

async fn who_may_not_gets_no_socket(world: &mut World) -> Outcome {
    let (gateway, vm, alice) = alice(world).await?;
    for (caller, expected) in [(alice.user("bob"), 403), (gateway.caller("gl_x")?, 401)] {
        let refused = Socket::connect(&caller, &vm).await.err();
        ensure!(status(refused)? == expected);
    }
    let plain = alice.get(&format!("/v1/vms/{vm}/exec")).await?;
    ensure!(plain.failure() == (400, "BAD_REQUEST"), "{plain:?}");
    Ok(())
}

async fn what_is_no_message_is_a_clear_error(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    for (start, word) in [
        (json!([]), None),
        (json!({"command": "true", "argv": ["true"]}), None),
        (json!({"argv": []}), None),
        (json!({"command": "true", "unknown": 1}), None),
        (
            json!({"command": "sleep 100"}),
            Some(json!({"type": "nothing"})),
        ),
    ] {
        let mut socket = Socket::open(&alice, &vm, start.clone()).await?;
        if let Some(word) = word {
            socket.tell(word).await?;
        }
        let said = socket.end().await?;
        ensure!(
            said.last["type"] == "failed"
                && said.last["code"] == "BAD_REQUEST"
                && !text(&said.last, "message")?.is_empty(),
            "{start}: {}",
            said.last
        );
    }
    Ok(())
}

async fn a_revoked_token_cuts_the_socket(world: &mut World) -> Outcome {
    let (gateway, vm, alice) = alice(world).await?;
    let mut socket = Socket::open(&alice, &vm, json!({"command": "echo on; sleep 4324"})).await?;
    socket.until("on").await?;
    let identity = alice.get("/auth/v1/whoami").await?.ok()?;
    let identity = text(&identity, "identityId")?;
    let admin = gateway.admin()?;
    admin
        .delete(&format!("/identity/v1/identities/{identity}"))
        .await?
        .ok()?;
    let said = timeout(Duration::from_secs(5), socket.end())
        .await
        .context("it was not cut in time")??;
    ensure!(said.last["code"] == "UNAUTHORIZED_ERROR", "{}", said.last);
    Ok(())
}

async fn a_gateway_that_ends_cuts_the_socket_and_says_so(world: &mut World) -> Outcome {
    let gateway = world.gateway_with(&["--drain-timeout=1"]).await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    let mut socket = Socket::open(&alice, &vm, json!({"command": "echo on; sleep 4325"})).await?;
    socket.until("on").await?;
    gateway.terminate().await?;
    let said = socket.end().await?;
    ensure!(said.last["type"] == "failed", "{}", said.last);
    let folder = gateway.folder().to_owned();
    gateway.ended().await?;
    let log = std::fs::read_to_string(folder.join("audit.jsonl"))?;
    let starts = log.matches("\"phase\":\"start\"").count();
    ensure!(starts == log.matches("\"phase\":\"end\"").count(), "{log}");
    Ok(())
}

async fn much_output_arrives_whole_before_the_exit(world: &mut World) -> Outcome {
    let (_gateway, vm, alice) = alice(world).await?;
    let start = json!({"command": "head -c 30000000 /dev/zero; echo end >&2"});
    let said = Socket::open(&alice, &vm, start).await?.end().await?;
    ensure!(said.stdout.len() == 30_000_000, "{}", said.stdout.len());
    ensure!(said.stderr == b"end\n" && said.last["statusCode"] == 0);
    Ok(())
}

/// Of a refused upgrade.
fn status(error: Option<anyhow::Error>) -> anyhow::Result<u16> {
    match error.context("it was allowed")?.downcast()? {
        tungstenite::Error::Http(answer) => Ok(answer.status().as_u16()),
        other => Err(other.into()),
    }
}

//! The command line's `forward` and `ports`: the host's side of what the network suite shows.

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use super::{
    commands::guestline,
    network::{Peer, closed_port},
};
use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

cases![
    forward_listens_by_tcp_and_unix_and_ends_on_an_interrupt,
    a_connection_that_fails_is_one_line_and_the_listener_goes_on,
    forward_says_at_once_that_it_cannot,
    stdio_is_the_stream_and_exits_as_it_ended,
    ports_are_a_table_and_a_document,
];

/// A running `guestline forward`.
struct Forward {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Forward {
    fn start(target: &Target, forwardings: &[String]) -> anyhow::Result<Self> {
        let mut child = guestline(target, "alice")?
            .arg("forward")
            .args(forwardings)
            .spawn()?;
        Ok(Self {
            stdout: BufReader::new(child.stdout.take().context("piped")?).lines(),
            stderr: BufReader::new(child.stderr.take().context("piped")?).lines(),
            child,
        })
    }

    /// Where it says that it listens.
    async fn listening(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await??;
        let line = line.context("it ended without listening")?;
        let words = line.strip_prefix("listening on ");
        let address = words.and_then(|words| words.split(',').next());
        Ok(address.with_context(|| format!("it said {line:?}"))?.into())
    }

    async fn complaint(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.stderr.next_line()).await??;
        line.context("it ended without a word")
    }

    /// As ^C does.
    async fn interrupt(mut self) -> anyhow::Result<Option<i32>> {
        let pid = self.child.id().context("it ended before")?.to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().await?;
        ensure!(sent.success(), "kill: {sent}");
        Ok(timeout(PATIENCE, self.child.wait()).await??.code())
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome {
    stream.write_all(b"there and back").await?;
    stream.shutdown().await?;
    let mut back = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut back)).await??;
    ensure!(back == "there and back", "{back:?}");
    Ok(())
}

async fn forward_listens_by_tcp_and_unix_and_ends_on_an_interrupt(target: &Target) -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("s");
    let peer = Peer::start(&target.user("alice"), "echo", "tcp").await?;
    let forwardings = [
        format!("0:{}", peer.port),
        format!("unix:{}:localhost:{}", socket.display(), peer.port),
    ];
    let mut forward = Forward::start(target, &forwardings)?;
    let address = forward.listening().await?;
    ensure!(address.starts_with("127.0.0.1:"), "{address}");
    ensure!(forward.listening().await? == format!("unix:{}", socket.display()));
    // Both at once, and each more than once.
    for _ in 0..2 {
        tokio::try_join!(
            echo(TcpStream::connect(&address).await?),
            echo(UnixStream::connect(&socket).await?)
        )?;
    }
    let mode = std::fs::metadata(&socket)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "others may connect: {mode:o}");
    let open = TcpStream::connect(&address).await?;
    ensure!(forward.interrupt().await? == Some(0));
    ensure!(!socket.exists(), "the socket's file is left");
    drop(open);
    Ok(())
}

async fn a_connection_that_fails_is_one_line_and_the_listener_goes_on(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let closed = closed_port(&alice).await?;
    let forwardings = ["0:/home/alice/late.sock".into(), format!("0:{closed}")];
    let mut forward = Forward::start(target, &forwardings)?;
    let (address, refused) = (forward.listening().await?, forward.listening().await?);
    let mut stream = TcpStream::connect(&refused).await?;
    let read = timeout(PATIENCE, stream.read(&mut [0])).await?;
    ensure!(read.is_err(), "a refused connection read {read:?}");
    let complaint = forward.complaint().await?;
    ensure!(
        complaint.contains(&format!("port {closed}")) && complaint.contains("ECONNREFUSED"),
        "{complaint}"
    );
    // What was not there may come.
    super::shell(&alice, "rm -f late.sock").await?;
    drop(TcpStream::connect(&address).await?);
    let complaint = forward.complaint().await?;
    ensure!(
        complaint.contains("/home/alice/late.sock") && complaint.contains("ENOENT"),
        "{complaint}"
    );
    let _peer = Peer::start(&alice, "echo", "unix:late.sock").await?;
    echo(TcpStream::connect(&address).await?).await
}

async fn forward_says_at_once_that_it_cannot(target: &Target) -> Outcome {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let twice = format!("{}:80", taken.local_addr()?.port());
    let rows = [
        // No such user; no port of the guest's; a port of ours that is taken.
        ("mallory", "0:80", 255),
        ("alice", "0:0", 2),
        ("alice", &twice, 1),
    ];
    for (user, forwarding, code) in rows {
        let mut command = guestline(target, user)?;
        let output = command.args(["forward", forwarding]).output();
        let output = timeout(PATIENCE, output).await??;
        ensure!(
            output.status.code() == Some(code) && output.stdout.is_empty(),
            "{user} {forwarding}: {output:?}"
        );
    }
    Ok(())
}

async fn stdio_is_the_stream_and_exits_as_it_ended(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut peer = Peer::start(&alice, "speak", "tcp").await?;
    let mut command = guestline(target, "alice")?;
    command.args(["forward", "--stdio", &peer.port.to_string()]);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("piped")?;
    stdin.write_all(b"world").await?;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await??;
    ensure!(
        output.status.code() == Some(0) && output.stdout == b"hello",
        "{output:?}"
    );
    peer.expect("heard 5").await?;
    let closed = closed_port(&alice).await?.to_string();
    let mut command = guestline(target, "alice")?;
    let output = command.args(["forward", "--stdio", &closed]).output();
    let output = timeout(PATIENCE, output).await??;
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(())
}

async fn ports_are_a_table_and_a_document(target: &Target) -> Outcome {
    let peer = Peer::start(&target.user("alice"), "echo", "tcp").await?;
    let said = async |words: &[&str]| -> anyhow::Result<String> {
        let output = guestline(target, "alice")?.args(words).output().await?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let table = said(&["ports"]).await?;
    let address = format!("127.0.0.1:{}", peer.port);
    let line = table.lines().find(|line| line.ends_with(&address));
    let words: Vec<_> = line.context("no line")?.split_whitespace().collect();
    ensure!(words[0] == "1000" && words[2] == "peer", "{words:?}");
    let document = said(&["ports", "--json"]).await?;
    ensure!(
        document.contains(&format!("\"port\": {}", peer.port)),
        "{document}"
    );
    Ok(())
}

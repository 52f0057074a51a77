//! Streams to what listens in the guest, and who it is. The listeners are processes of the guest's users: see guest/peer.rs.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use guestline_client::{
    Child, ErrorReason, Event, ForwardTarget, Input, Port, PortAddress, Vm, WriteOptions,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{expect_errno, faults::kill_worker, pattern, refusal, shell};
use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENAMETOOLONG: i32 = 36;
const ECONNREFUSED: i32 = 111;

const PEER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peer"));

cases![
    bytes_go_both_ways_and_each_way_ends_by_itself,
    sixty_four_mib_arrive_as_they_were_sent,
    a_closed_port_is_refused_with_its_errno,
    a_unix_socket_asks_for_the_users_own_permission,
    what_was_shut_down_after_the_guest_has_arrived,
    a_dropped_stream_is_a_reset_in_the_guest,
    a_dropped_stream_frees_a_guest_that_does_not_read,
    a_killed_worker_is_an_end_to_neither_side,
    a_stalled_reader_stalls_its_own_stream_alone,
    ports_name_a_listener_and_whose_it_is,
];

/// A listening program of the guest.
pub(super) struct Peer {
    child: Child,
    /// 0 for a Unix socket.
    pub(super) port: u16,
    /// What it said, and was not asked about yet.
    said: Vec<u8>,
}

impl Peer {
    /// Runs until it is dropped. Mode and address are those of guest/peer.rs.
    pub(super) async fn start(vm: &Vm, mode: &str, address: &str) -> anyhow::Result<Self> {
        let options = WriteOptions::replace().permissions(0o755);
        super::put(&vm.files(), "peer", PEER, options).await?;
        let mut command = vm.command("./peer");
        let child = command.args([mode, address]).stdin(true).spawn().await?;
        let mut peer = Self {
            child,
            port: 0,
            said: Vec::new(),
        };
        let line = peer.line().await?;
        let port = line.strip_prefix("listening ").context("no port")?;
        peer.port = port.parse()?;
        Ok(peer)
    }

    fn input(&self) -> Input {
        self.child.input()
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.said.iter().position(|&byte| byte == b'\n') {
                let line = self.said.drain(..=end).collect();
                return Ok(String::from_utf8(line)?.trim_end().into());
            }
            match timeout(PATIENCE, self.child.event()).await?? {
                Event::Stdout(bytes) => self.said.extend(bytes),
                other => bail!("the peer: {other:?}"),
            }
        }
    }

    pub(super) async fn expect(&mut self, expected: &str) -> anyhow::Result<()> {
        let line = self.line().await?;
        ensure!(line == expected, "the peer said {line:?}, not {expected:?}");
        Ok(())
    }
}

async fn bytes_go_both_ways_and_each_way_ends_by_itself(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // The guest's end first.
    let mut speaker = Peer::start(&alice, "speak", "tcp").await?;
    let mut stream = alice.network().forward(speaker.port).await?;
    let mut said = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut said)).await??;
    ensure!(said == "hello", "{said:?}");
    stream.write_all(b"world").await?;
    stream.shutdown().await?;
    speaker.expect("heard 5").await?;
    speaker.expect("end").await?;
    // Ours first.
    let mut echo = Peer::start(&alice, "echo", "tcp").await?;
    let mut stream = alice.network().forward(echo.port).await?;
    stream.write_all(b"there and back").await?;
    stream.shutdown().await?;
    let mut back = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut back)).await??;
    ensure!(back == "there and back", "{back:?}");
    echo.expect("end").await
}

async fn sixty_four_mib_arrive_as_they_were_sent(target: &Target) -> Outcome {
    const ROUNDS: usize = 64;
    let alice = target.user("alice");
    let mut echo = Peer::start(&alice, "echo", "tcp").await?;
    let stream = alice.network().forward(echo.port).await?;
    // A length that fits into no chunk and no window.
    let block = pattern((1 << 20) - 1);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        for _ in 0..ROUNDS {
            writer.write_all(&block).await?;
        }
        writer.shutdown().await.map_err(anyhow::Error::from)
    };
    let receive = async {
        let mut back = vec![0; block.len()];
        for round in 0..ROUNDS {
            reader.read_exact(&mut back).await?;
            ensure!(back == block, "block {round} came back changed");
        }
        ensure!(reader.read(&mut back).await? == 0, "more came than went");
        Ok(())
    };
    tokio::try_join!(send, receive)?;
    echo.expect("end").await
}

/// One that was open a moment ago.
pub(super) async fn closed_port(vm: &Vm) -> anyhow::Result<u16> {
    let peer = Peer::start(vm, "echo", "tcp").await?;
    peer.child.kill().await;
    peer.child.wait().await?;
    Ok(peer.port)
}

async fn a_closed_port_is_refused_with_its_errno(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let port = closed_port(&alice).await?;
    let error = refusal("a closed port", alice.network().forward(port).await)?;
    ensure!(error.errno() == Some(ECONNREFUSED), "{error:?}");
    ensure!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "the text does not say where: {error}"
    );
    let error = refusal("port 0", alice.network().forward(0).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::InvalidArgument),
        "{error:?}"
    );
    Ok(())
}

async fn a_unix_socket_asks_for_the_users_own_permission(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    shell(&root, "rm -f /home/roots.sock").await?;
    let mut roots = Peer::start(&root, "echo", "unix:/home/roots.sock").await?;
    shell(&root, "chmod 600 /home/roots.sock").await?;
    let path = Path::new("/home/roots.sock");
    let refused = alice.network().forward(path).await;
    expect_errno("alice at root's socket", refused, EACCES)?;
    let mut stream = root.network().forward(path).await?;
    stream.shutdown().await?;
    ensure!(stream.read(&mut [0]).await? == 0);
    roots.expect("end").await?;
    // What is open to all is open to alice: the socket's mode decided, and nothing else.
    shell(&root, "chmod 666 /home/roots.sock").await?;
    alice.network().forward(path).await?;
    let missing = alice.network().forward(Path::new("none.sock")).await;
    expect_errno("a missing socket", missing, ENOENT)?;
    let long = ForwardTarget::Unix("x".repeat(200).into());
    expect_errno(
        "a long path",
        alice.network().forward(long).await,
        ENAMETOOLONG,
    )?;
    // A relative path starts at the home.
    shell(&alice, "rm -f own.sock").await?;
    let _own = Peer::start(&alice, "echo", "unix:own.sock").await?;
    alice.network().forward(Path::new("own.sock")).await?;
    Ok(())
}

/// Both ends are said: the stream may be dropped, and its connection with it, whatever was still on its way.
async fn what_was_shut_down_after_the_guest_has_arrived(target: &Target) -> Outcome {
    let mut speaker = Peer::start(&target.user("alice"), "speak", "tcp").await?;
    let block = pattern(3 << 20);
    for is_first in [true, false, true, false] {
        let bob = target.user("bob");
        let mut stream = bob.network().forward(speaker.port).await?;
        let mut said = String::new();
        if is_first {
            timeout(PATIENCE, stream.read_to_string(&mut said)).await??;
        }
        stream.write_all(&block).await?;
        timeout(PATIENCE, stream.shutdown()).await??;
        if !is_first {
            timeout(PATIENCE, stream.read_to_string(&mut said)).await??;
        }
        ensure!(said == "hello", "{said:?}");
        drop((stream, bob));
        speaker.expect(&format!("heard {}", block.len())).await?;
        speaker.expect("end").await?;
    }
    Ok(())
}

async fn a_dropped_stream_is_a_reset_in_the_guest(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut echo = Peer::start(&alice, "echo", "tcp").await?;
    let mut stream = alice.network().forward(echo.port).await?;
    stream.write_all(b"half").await?;
    stream.read_exact(&mut [0; 4]).await?;
    drop(stream);
    echo.expect("error ConnectionReset").await?;
    // With its connection, too.
    let bob = target.user("bob");
    let stream = bob.network().forward(echo.port).await?;
    drop((stream, bob));
    echo.expect("error ConnectionReset").await
}

async fn a_dropped_stream_frees_a_guest_that_does_not_read(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut late = Peer::start(&alice, "late", "tcp").await?;
    let mut stream = alice.network().forward(late.port).await?;
    late.expect("accepted").await?;
    let block = pattern(1 << 20);
    let mut sent = 0;
    // Until all that lies between is full.
    while timeout(Duration::from_secs(1), stream.write_all(&block))
        .await
        .is_ok()
    {
        sent += 1;
        ensure!(sent < 64, "a guest that does not read took {sent} MiB");
    }
    drop(stream);
    late.input().close().await;
    late.expect("error ConnectionReset").await
}

async fn a_killed_worker_is_an_end_to_neither_side(target: &Target) -> Outcome {
    let bob = target.user("bob");
    let mut echo = Peer::start(&target.user("alice"), "echo", "tcp").await?;
    let mut stream = bob.network().forward(echo.port).await?;
    stream.write_all(b"half").await?;
    stream.read_exact(&mut [0; 4]).await?;
    kill_worker(target, &bob).await?;
    let read = timeout(PATIENCE, stream.read(&mut [0])).await?;
    ensure!(read.is_err(), "a lost stream read {read:?}");
    echo.expect("error ConnectionReset").await
}

async fn a_stalled_reader_stalls_its_own_stream_alone(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let flood = Peer::start(&alice, "flood", "tcp").await?;
    let echo = Peer::start(&alice, "echo", "tcp").await?;
    // One connection: as many streams as the windows of all of them would stall.
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(alice.network().forward(flood.port).await?);
    }
    let mut stream = alice.network().forward(echo.port).await?;
    let block = pattern(256 * 1024);
    let mut back = vec![0; block.len()];
    for _ in 0..16 {
        stream.write_all(&block).await?;
        timeout(PATIENCE, stream.read_exact(&mut back)).await??;
        ensure!(back == block);
    }
    // They only waited.
    for stream in &mut stalled {
        timeout(PATIENCE, stream.read_exact(&mut vec![0; 8 << 20])).await??;
    }
    Ok(())
}

async fn ports_name_a_listener_and_whose_it_is(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -f named.sock").await?;
    let tcp = Peer::start(&alice, "echo", "tcp").await?;
    let unix = Peer::start(&alice, "echo", "unix:/home/alice/named.sock").await?;
    let find = async |user: &str, peer: &Peer| -> anyhow::Result<Port> {
        let wanted = match peer.port {
            0 => PortAddress::Unix("/home/alice/named.sock".into()),
            port => PortAddress::Tcp(([127, 0, 0, 1], port).into()),
        };
        let ports = target.user(user).network().ports().await?;
        let mut found = ports.into_iter().filter(|port| port.address == wanted);
        let one = found
            .next()
            .with_context(|| format!("{user} does not see {wanted:?}"))?;
        ensure!(found.next().is_none(), "{wanted:?} is there twice");
        Ok(one)
    };
    for peer in [&tcp, &unix] {
        for user in ["alice", "root"] {
            let port = find(user, peer).await?;
            ensure!(
                port.uid == Some(1000)
                    && port.pid == Some(peer.child.pid())
                    && port.program == "peer",
                "{user} sees {port:?}"
            );
        }
        // Bob learns what the kernel tells everybody, and no more.
        let port = find("bob", peer).await?;
        ensure!(
            port.uid == Some(1000) && port.pid.is_none(),
            "bob sees {port:?}"
        );
    }
    Ok(())
}

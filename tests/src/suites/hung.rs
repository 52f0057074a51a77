//! A file system that never answers, made of /dev/fuse and nobody behind it: calls end by their deadline, and
//! nothing else does.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use guestline_client::{Child, ErrorReason, Event, Vm};
use guestline_proto::{decode_error_detail, v1};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::{isolation::field, proc::worker_of, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    stub,
    target::Target,
};

cases![
    calls_on_a_hung_mount_end_by_their_deadline_and_no_other_call_does: [6],
];

const PLACE: &str = "/var/tmp/hung";

/// What a call gets.
const LIMIT: Duration = Duration::from_secs(1);

async fn calls_on_a_hung_mount_end_by_their_deadline_and_no_other_call_does(
    target: &Target,
) -> Outcome {
    let root = target.user("root");
    let alice = target.user("alice");
    let worker = worker_of(&alice).await?;
    let before = Held::by(&worker, &root).await?;
    let mount = hang(&root).await?;
    let result = async {
        let calls = ["stat", "read", "list", "write", "make directory", "remove"];
        let mut under_way = tokio::task::JoinSet::new();
        for _ in 0..4 {
            for call in calls {
                let files = stub::files(target, "alice").await?;
                under_way.spawn(async move { (call, hopeless(files, call).await) });
            }
        }
        // Beside them, on another connection of the same worker.
        for _ in 0..20 {
            alice.files().write("beside", "b").await?;
            ensure!(alice.files().read("beside").await? == b"b");
        }
        ensure!(shell(&alice, "echo beside").await?.1 == "beside\n");
        while let Some(ended) = timeout(PATIENCE, under_way.join_next())
            .await
            .context("a call has outlived its deadline")?
        {
            let (call, ended) = ended?;
            let Err(status) = ended else {
                bail!("{call} ended well");
            };
            let reason = decode_error_detail(status.details()).map(|detail| detail.reason());
            ensure!(
                status.code() == Code::DeadlineExceeded
                    && reason == Some(ErrorReason::DeadlineExceeded),
                "{call}: {status:?}"
            );
        }
        Ok(())
    };
    let result = result.await;
    // With its only holder gone, the kernel ends what waits for it.
    mount.kill().await;
    shell(&root, &format!("umount -l {PLACE}; rmdir {PLACE}")).await?;
    result?;
    eventually(
        "threads and descriptors are given back",
        PATIENCE * 2,
        async || {
            let now = Held::by(&worker, &root).await?;
            Ok(now.threads <= before.threads && now.descriptors <= before.descriptors)
        },
    )
    .await
}

/// A call on the mount, with a deadline.
async fn hopeless(
    mut files: v1::files_client::FilesClient<stub::Stub>,
    call: &str,
) -> Result<(), Status> {
    fn timed<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(LIMIT);
        request
    }
    let path = || format!("{PLACE}/file").into();
    match call {
        "stat" => {
            let request = v1::StatRequest {
                path: path(),
                ..Default::default()
            };
            files.stat(timed(request)).await.map(drop)
        }
        "read" => {
            let request = v1::ReadRequest {
                path: path(),
                ..Default::default()
            };
            let mut stream = files.read(timed(request)).await?.into_inner();
            stream.message().await.map(drop)
        }
        "list" => {
            let request = v1::ListRequest {
                path: PLACE.into(),
                ..Default::default()
            };
            let mut stream = files.list(timed(request)).await?.into_inner();
            stream.message().await.map(drop)
        }
        "write" => {
            let start = v1::WriteStart {
                path: path(),
                ..Default::default()
            };
            let message = Some(v1::write_request::Message::Start(start));
            // The stream stays open: the deadline ends it.
            let messages = tokio_stream::StreamExt::chain(
                tokio_stream::once(v1::WriteRequest { message }),
                tokio_stream::pending(),
            );
            files.write(timed(messages)).await.map(drop)
        }
        "make directory" => {
            let request = v1::MakeDirectoryRequest {
                path: path(),
                ..Default::default()
            };
            files.make_directory(timed(request)).await.map(drop)
        }
        _ => {
            let request = v1::RemoveRequest {
                path: path(),
                ..Default::default()
            };
            files.remove(timed(request)).await.map(drop)
        }
    }
}

/// Mounts it, for as long as the program lives.
async fn hang(root: &Vm) -> anyhow::Result<Child> {
    let options = "fd=9,rootmode=40755,user_id=0,group_id=0,allow_other";
    let line = format!(
        "umount -l {PLACE} 2>/dev/null; mkdir -p {PLACE}; exec 9<>/dev/fuse && \
         mount -i -t fuse -o {options} hung {PLACE} && echo mounted && exec sleep 1000"
    );
    let mut child = root.shell(line).merge_stderr(true).spawn().await?;
    match child.event().await? {
        Event::Stdout(said) if said == "mounted\n" => Ok(child),
        other => bail!("cannot mount: {other:?}"),
    }
}

/// What a worker holds.
#[derive(Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
}

impl Held {
    /// As root sees it: a call of the worker's own would wake its idle threads, and so keep them.
    async fn by(worker: &str, root: &Vm) -> anyhow::Result<Self> {
        let files = root.files();
        let status = files.read(format!("/proc/{worker}/status")).await?;
        let threads = field(&String::from_utf8(status)?, "Threads:")?;
        let descriptors = files.read_dir(format!("/proc/{worker}/fd")).await?;
        Ok(Self {
            threads: threads.parse().context("Threads")?,
            descriptors: descriptors.len(),
        })
    }
}

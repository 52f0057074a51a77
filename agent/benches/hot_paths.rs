//! `hot_paths NAME COUNT`: goes one of the agent's hot paths so many times, for `cargo xtask bench --check`, which counts
//! the instructions under callgrind. One thread wherever the path itself has one, so that the count repeats; no time is
//! measured here.

use std::{convert::Infallible, fs, future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use guestline_agent::measured;
use guestline_archive::{Chunks, OutsideLinks, PackOptions, Piece, Pieces, Root, UnpackOptions};
use guestline_proto::{
    MAX_CHUNK_SIZE,
    hello::Hello,
    v1::{
        ListRequest, ReadRequest, StatRequest, WriteFinish, WriteRequest, WriteStart,
        write_request::Message,
    },
};
use http_body::Body as _;
use tempfile::TempDir;
use tonic::{body::Body, codegen::http};

/// Entries of the folder that is listed, packed and unpacked.
const ENTRIES: usize = 1000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &words[..] else {
        panic!("usage: hot_paths NAME COUNT");
    };
    let count: usize = count.parse().expect("a count");
    // One more than asked for in every case: what a first time alone costs is in both counts that are compared.
    let path = Paths::new();
    for _ in 0..=count {
        match name.as_str() {
            "call" => path.call(),
            "read-small" => path.read("small", 4096),
            "read-large" => path.read("large", 4 * MAX_CHUNK_SIZE),
            "write-large" => path.write(4),
            "list" => path.list(),
            "pack" => drop(path.pack()),
            "unpack" => path.unpack(),
            "spawn" => measured::run_true().expect("a program"),
            "hello" => path.hello(),
            other => panic!("no path {other:?}"),
        }
    }
}

/// As a worker answers.
type Service = dyn Fn(http::Request<Body>) -> Answer;
type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// What the paths work on.
struct Paths {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    /// One for all calls, as in a worker: what it learns of the host's mounts is not for each call to pay.
    service: Box<Service>,
}

impl Paths {
    fn new() -> Self {
        // In memory: a file system of the kernel's own, whatever the temporary folder is on.
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in /dev/shm");
        fs::write(folder.path().join("small"), vec![1; 4096]).expect("a file");
        fs::write(folder.path().join("large"), vec![1; 4 * MAX_CHUNK_SIZE]).expect("a file");
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).expect("a folder");
        for n in 0..ENTRIES {
            fs::write(tree.join(format!("entry-{n}")), vec![b'x'; 1024]).expect("a file");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            service: Box::new(measured::files(folder.path().into())),
            folder,
            runtime: runtime.expect("a runtime"),
        }
    }

    /// One rpc of Files, from its HTTP request to the end of its answer; how many bytes that has.
    fn rpc(&self, name: &str, messages: &[Bytes]) -> usize {
        let frames = messages.to_vec();
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("/guestline.v1.Files/{name}"))
            .header("content-type", "application/grpc")
            .body(Body::new(Sent(frames.into_iter())))
            .expect("a request");
        self.runtime.block_on(async {
            let Ok(answer) = (self.service)(request).await;
            let mut body = answer.into_body();
            let mut bytes = 0;
            while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                match frame.expect("a frame").into_data() {
                    Ok(data) => bytes += data.len(),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
                    }
                }
            }
            bytes
        })
    }

    fn call(&self) {
        let path = "small".into();
        let no_follow = false;
        self.rpc("Stat", &[message(&StatRequest { path, no_follow })]);
    }

    fn read(&self, name: &'static str, size: usize) {
        let request = ReadRequest {
            path: name.into(),
            ..ReadRequest::default()
        };
        assert!(self.rpc("Read", &[message(&request)]) > size);
    }

    fn write(&self, chunks: usize) {
        let part = |message| {
            let message = Some(message);
            self::message(&WriteRequest { message })
        };
        let start = WriteStart {
            path: "written".into(),
            ..WriteStart::default()
        };
        let size = (chunks * MAX_CHUNK_SIZE) as u64;
        let chunk = part(Message::Data(vec![1; MAX_CHUNK_SIZE].into()));
        let mut messages = vec![part(Message::Start(start))];
        messages.extend(std::iter::repeat_n(chunk, chunks));
        messages.push(part(Message::Finish(WriteFinish { size })));
        self.rpc("Write", &messages);
    }

    fn list(&self) {
        let request = ListRequest {
            path: "tree".into(),
            ..ListRequest::default()
        };
        assert!(self.rpc("List", &[message(&request)]) > ENTRIES * 20);
    }

    fn pack(&self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let mut chunks = Chunks::new(MAX_CHUNK_SIZE, |chunk| {
            sent.push(chunk);
            true
        });
        let tree = self.folder.path().join("tree");
        guestline_archive::pack(&tree, PackOptions::default(), &mut chunks, &mut ())
            .expect("packed");
        drop(chunks);
        sent
    }

    /// Packs too, since the stream is needed.
    fn unpack(&self) {
        let mut stream = self.pack().into_iter();
        let to = self.folder.path().join("unpacked");
        let root = Root::open(&to, true).expect("a folder");
        let bytes = Pieces::new(|| stream.next().map_or(Piece::End, Piece::Data));
        let options = UnpackOptions {
            owners: false,
            outside_links: OutsideLinks::Refuse,
            mask: 0,
        };
        let unpacked = guestline_archive::unpack(&root, options, bytes, &mut ()).expect("unpacked");
        assert!(unpacked.entries as usize >= ENTRIES);
    }

    fn hello(&self) {
        let hello = Hello::parse(b"guestline/1 user=alice").expect("a hello");
        assert_eq!(hello.to_line(), "guestline/1 user=alice\n");
    }
}

/// A message with its head.
fn message(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut bytes).expect("room");
    bytes.freeze()
}

/// A body of these frames.
struct Sent(std::vec::IntoIter<Bytes>);

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        std::task::Poll::Ready(self.0.next().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

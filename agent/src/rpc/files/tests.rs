//! Streams of the service as a client gets them.

use std::fs;

use guestline_proto::{MAX_CHUNK_SIZE, v1::ErrorReason};
use tokio_stream::StreamExt;

use super::*;

fn service() -> (tempfile::TempDir, FilesService) {
    let home = tempfile::tempdir().unwrap();
    let service = FilesService::new(home.path().into());
    (home, service)
}

fn read(service: &FilesService, path: &'static str) -> BlockingStream<ReadResponse> {
    let request = ReadRequest {
        path: path.into(),
        ..ReadRequest::default()
    };
    service.read_file(Request::new(request)).unwrap()
}

#[tokio::test]
async fn a_read_tells_what_was_opened_and_then_the_bytes() {
    let (home, service) = service();
    let content = vec![7; 2 * MAX_CHUNK_SIZE + 1];
    fs::write(home.path().join("file"), &content).unwrap();
    let mut stream = read(&service, "file");
    let first = stream.next().await.unwrap().unwrap().message;
    assert!(matches!(first, Some(Message::Opened(it)) if it.size == content.len() as u64));
    let mut sizes = Vec::new();
    while let Some(response) = stream.next().await {
        match response.unwrap().message {
            Some(Message::Data(data)) => sizes.push(data.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sizes, [MAX_CHUNK_SIZE, MAX_CHUNK_SIZE, 1]);
}

#[tokio::test]
async fn a_stream_that_cannot_start_ends_with_a_typed_error() {
    let (_home, service) = service();
    let mut stream = read(&service, "/dev/zero");
    let status = stream.next().await.unwrap().unwrap_err();
    let detail = guestline_proto::decode_error_detail(status.details()).unwrap();
    assert_eq!(detail.reason(), ErrorReason::SpecialFile);
    assert_eq!(detail.path, "/dev/zero");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_listing_comes_in_bounded_pages() {
    let (home, service) = service();
    for n in 0..1100 {
        fs::write(home.path().join(n.to_string()), "").unwrap();
    }
    let path = ".".into();
    let request = ListRequest {
        path,
        ..ListRequest::default()
    };
    let mut pages = service
        .list(Request::new(request))
        .await
        .unwrap()
        .into_inner();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().entries.len());
    }
    assert_eq!(sizes, [512, 512, 76]);
}

#[tokio::test]
async fn a_watch_that_nobody_listens_to_ends_and_gives_its_place_back() {
    let (home, service) = service();
    // More than there are places at once.
    for n in 0..100 {
        let request = WatchRequest {
            path: ".".into(),
            recursive: true,
        };
        let watch = service.watch(Request::new(request)).await;
        let mut watch = watch.unwrap().into_inner();
        let ready = watch.next().await.unwrap().unwrap();
        assert!(ready.message.is_some());
        fs::create_dir(home.path().join(n.to_string())).unwrap();
        assert!(watch.next().await.unwrap().is_ok());
    }
}

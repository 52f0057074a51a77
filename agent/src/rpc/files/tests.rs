//! Streams of the service as a client gets them.

use std::fs;

use guestline_proto::{MAX_CHUNK_SIZE, v1::ErrorReason};
use tokio_stream::StreamExt;
use tonic::Code;

use super::*;

fn service() -> (tempfile::TempDir, FilesService) {
    let home = tempfile::tempdir().unwrap();
    let service = FilesService::new(home.path().into());
    (home, service)
}

async fn read(service: &FilesService, path: &'static str) -> BlockingStream<ReadResponse> {
    let request = ReadRequest {
        path: path.into(),
        ..ReadRequest::default()
    };
    let answer = service.read(Request::new(request)).await;
    answer.unwrap().into_inner()
}

#[tokio::test]
async fn a_read_tells_what_was_opened_and_then_the_bytes() {
    let (home, service) = service();
    let content = vec![7; 2 * MAX_CHUNK_SIZE + 1];
    fs::write(home.path().join("file"), &content).unwrap();
    let mut stream = read(&service, "file").await;
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
    let mut stream = read(&service, "/dev/zero").await;
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
async fn what_is_not_there_yet_says_so() {
    let (_home, service) = service();
    let result = service.watch(Request::new(WatchRequest::default())).await;
    assert_eq!(result.err().unwrap().code(), Code::Unimplemented);
}

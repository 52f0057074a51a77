//! What a guest that means harm can make of this host's memory and of its numbers.

use std::future::Future;

use guestline_client::{AttachEvent, Error, LogOptions, Offsets, Vm};
use guestline_proto::{MAX_MESSAGE_SIZE, MAX_PARTS, v1};
use prost::Message;

use crate::fake::{Answer, agent};

const OK: &str = "ok version=0.1.0 uid=1000\n";

/// An empty item of the list that is the first field of most answers: two bytes, and some hundred in memory.
const EMPTY_ITEM: [u8; 2] = [1 << 3 | 2, 0];

async fn refused<T>(what: &str, call: impl Future<Output = Result<T, Error>>) {
    match call.await {
        Err(Error::Protocol(text)) if text.contains("parts") => {}
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what}: taken"),
    }
}

#[tokio::test]
async fn a_message_of_too_many_parts_is_refused_whatever_it_is() {
    let bomb = EMPTY_ITEM.repeat(MAX_MESSAGE_SIZE / EMPTY_ITEM.len());
    let (_folder, vm) = agent(OK, move |_| Answer::One(bomb.clone()));
    let (files, system) = (vm.files(), vm.system());
    refused("users", system.users()).await;
    refused("groups", system.groups()).await;
    refused("services", system.services("")).await;
    refused("info", system.info()).await;
    refused("freeze", system.freeze(None)).await;
    refused("thaw", system.thaw()).await;
    refused("ports", vm.network().ports()).await;
    refused("processes", vm.processes().list()).await;
    refused("attributes", files.extended_attributes("/")).await;
    refused("read_dir", files.read_dir("/")).await;
    refused("list", files.list("/", 1)).await;
    refused("stat", files.stat("/")).await;
    refused("read", files.read("/etc/passwd")).await;
    refused("exec", vm.command("true").output()).await;
    let metrics = async { system.metrics(None).await?.next().await };
    refused("metrics", metrics).await;
    let logs = async {
        let options = LogOptions::default();
        system.service_logs("x", options).await?.next().await
    };
    refused("logs", logs).await;
}

#[tokio::test]
async fn as_many_parts_as_there_may_be_are_taken() {
    let most = EMPTY_ITEM.repeat(MAX_PARTS);
    let (_folder, vm) = agent(OK, move |_| Answer::One(most.clone()));
    assert_eq!(vm.system().users().await.unwrap().len(), MAX_PARTS);
    assert_eq!(vm.files().read_dir("/").await.unwrap().len(), MAX_PARTS);
}

fn endless(page: &impl Message) -> (tempfile::TempDir, Vm) {
    let page = page.encode_to_vec();
    agent(OK, move |_| Answer::Endless(page.clone()))
}

fn assert_too_long<T>(what: &str, list: Result<T, Error>) {
    match list {
        Err(Error::ListTooLong { items, bytes }) => {
            assert_eq!((items, bytes), (128 * 1024, 32 * 1024 * 1024));
        }
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what}: it has come to an end"),
    }
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let users = vec![v1::User::default(); 512];
    let (_folder, vm) = endless(&v1::ListUsersResponse { users });
    assert_too_long("users", vm.system().users().await);

    let port = v1::Port {
        path: "/run/socket".into(),
        ..v1::Port::default()
    };
    let ports = vec![port; 512];
    let (_folder, vm) = endless(&v1::ListPortsResponse { ports });
    assert_too_long("ports", vm.network().ports().await);

    // Few groups, and very many members.
    let members = vec!["m".into(); 100_000];
    let groups = vec![v1::Group {
        members,
        ..v1::Group::default()
    }];
    let (_folder, vm) = endless(&v1::ListGroupsResponse { groups });
    assert_too_long("groups", vm.system().groups().await);

    // Few entries, and very long names.
    let entry = v1::Entry {
        path: vec![b'x'; 1_000_000].into(),
        ..v1::Entry::default()
    };
    let entries = vec![entry];
    let (_folder, vm) = endless(&v1::ListResponse { entries });
    assert_too_long("entries", vm.files().read_dir("/").await);
}

#[tokio::test]
async fn a_directory_of_a_million_entries_is_listed_entry_by_entry() {
    let entry = v1::Entry {
        path: "name".into(),
        ..v1::Entry::default()
    };
    let entries = vec![entry; 512];
    let (_folder, vm) = endless(&v1::ListResponse { entries });
    assert_too_long("entries", vm.files().read_dir("/").await);
    let mut list = vm.files().list("/", 1).await.unwrap();
    for _ in 0..1_000_000 {
        let entry = list.next().await.unwrap().expect("there are more");
        assert_eq!(entry.path.as_os_str(), "name");
    }
}

#[tokio::test]
async fn an_offset_that_a_guest_made_up_ends_at_the_largest_number() {
    let data = v1::Output {
        stream: Some(v1::output::Stream::Stdout("more".into())),
    };
    let output = v1::AttachOutput {
        offset: u64::MAX - 1,
        output: Some(data),
    };
    let message = Some(v1::attach_response::Message::Output(output));
    let answer = v1::AttachResponse { message }.encode_to_vec();
    let (_folder, vm) = agent(OK, move |_| Answer::One(answer.clone()));
    let attached = vm.processes().attach(1, Offsets::default()).await;
    let mut attached = attached.unwrap();
    let event = attached.event().await.unwrap();
    assert_eq!(event, AttachEvent::Stdout("more".into()));
    assert_eq!(attached.reached().stdout, Some(u64::MAX));
}

//! The audit log's events.

use std::time::Duration;

use crate::{
    audit::{Actor, Audit, LogFile},
    ids::{IdentityId, OperationId, TokenId, VmId},
    metrics::Metrics,
    sessions::{Credential, Principal, Verb},
    store::{AuditFilter, Store},
};

pub(super) async fn events_are_read_newest_first_and_never_doubled(store: Store) {
    let folder = tempfile::tempdir().unwrap();
    let log = LogFile::open(folder.path().join("audit.jsonl")).unwrap();
    let (audit, mut queue) = Audit::new(log, Metrics::new());
    let (identity, vm) = (IdentityId::random(), VmId::random());
    let principal = Principal::Identity {
        identity: identity.clone(),
        credential: Credential::Token(TokenId::random()),
    };
    for vm in [vm.as_str(), "odd\0name"] {
        let actor = Actor::new(&principal, Verb::Exec, Some(vm), "alice", "::1".into());
        audit.operation(actor).await.unwrap().begin("echo \0 é");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    drop(audit);
    let mut events = Vec::new();
    while let Some(logged) = queue.recv().await {
        events.push(logged.event());
    }
    // Uids go beyond 31 bits.
    events[1].uid = Some(u32::MAX - 1);
    store.add_events(&events).await.unwrap();
    store.add_events(&events).await.unwrap();
    let all = store
        .events(&AuditFilter {
            limit: 10,
            ..AuditFilter::default()
        })
        .await
        .unwrap();
    assert_eq!(all.len(), 4);
    assert!(
        all[0]["vm"].as_str().unwrap().starts_with("odd"),
        "the newest first: {all:?}"
    );
    let one = AuditFilter {
        uid: events[1].uid,
        limit: 10,
        ..AuditFilter::default()
    };
    let found = store.events(&one).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["uid"], u32::MAX - 1);
    let of = |vm: Option<&VmId>, identity: Option<&IdentityId>| AuditFilter {
        vm: vm.map(ToString::to_string),
        identity: identity.map(ToString::to_string),
        uid: None,
        before: None,
        limit: 10,
    };
    assert_eq!(
        store
            .events(&of(Some(&vm), Some(&identity)))
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        store
            .events(&of(None, Some(&IdentityId::random())))
            .await
            .unwrap()
            .len(),
        0
    );
    let old = AuditFilter {
        before: Some(events[0].at_millis),
        limit: 10,
        ..AuditFilter::default()
    };
    assert!(store.events(&old).await.unwrap().is_empty());
    // More than go into one statement.
    let many: Vec<_> = (0..77)
        .map(|number| {
            let mut event = events[0].clone();
            event.operation = OperationId::random();
            event.at_millis += number;
            event
        })
        .collect();
    store.add_events(&many).await.unwrap();
    let filter = AuditFilter {
        limit: 1000,
        ..AuditFilter::default()
    };
    assert_eq!(store.events(&filter).await.unwrap().len(), 4 + many.len());
    store.add_events(&[]).await.unwrap();
}

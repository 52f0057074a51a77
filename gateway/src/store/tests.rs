//! What the store promises, on SQLite and on a real PostgreSQL server: the same cases, each on an empty database.

mod events;
mod vms;

use std::pin::Pin;

use guestline_tests::postgres::Postgres;

use super::{AllowedUsers, GrantOutcome, Location, SshKeyOutcome, Store, StoreError};
use crate::{
    ids::{IdentityId, KeyId, TokenId, VmId},
    sessions::{PublicKey, Secret},
};
use events::events_are_read_newest_first_and_never_doubled;
use vms::{
    a_vm_comes_back_as_it_was_stored, a_vm_in_use_does_not_go_to_sleep,
    idle_vms_are_told_with_the_longest_unused_first, of_many_who_change_a_state_one_succeeds,
    stored_vm,
};

impl Store {
    /// A new one.
    pub(crate) async fn create_identity(&self) -> Result<IdentityId, StoreError> {
        let id = IdentityId::random();
        self.add_identity(&id).await.map(|()| id)
    }
}

type Case = (&'static str, fn(Store) -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$((stringify!($name), |store| Box::pin($name(store)))),*];
    };
}

cases![
    identities_come_and_go,
    tokens_belong_to_an_identity_and_go_with_it,
    an_ssh_key_is_one_identitys_and_goes_with_it,
    a_grant_is_given_once,
    a_grant_changes_and_goes_with_its_vm,
    a_credential_is_told_with_what_it_reaches_as_it_is_now,
    only_one_first_key_is_made,
    a_vm_comes_back_as_it_was_stored,
    of_many_who_change_a_state_one_succeeds,
    a_vm_in_use_does_not_go_to_sleep,
    idle_vms_are_told_with_the_longest_unused_first,
    events_are_read_newest_first_and_never_doubled,
    the_account_stays,
];

#[tokio::test]
async fn sqlite_keeps_what_the_store_promises() {
    for (name, case) in CASES {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("a folder/gateway.db"));
        case(Store::open(&location).await.unwrap()).await;
        // The tables are there already.
        Store::open(&location).await.unwrap();
    }
}

#[tokio::test]
async fn postgresql_keeps_what_the_store_promises() {
    let server = Postgres::start().unwrap();
    for (name, case) in CASES {
        println!("{name}");
        let location = Location::Postgres(server.database(name).unwrap());
        case(Store::open(&location).await.unwrap()).await;
        Store::open(&location).await.unwrap();
    }
}

#[tokio::test]
async fn postgresql_may_go_away_and_come_back() {
    let mut server = Postgres::start().unwrap();
    let store = Store::open(&Location::Postgres(server.database("x").unwrap()))
        .await
        .unwrap();
    let identity = store.create_identity().await.unwrap();
    let (token, hash) = (TokenId::random(), Secret::new_token().hash());
    let added = store.add_token(&identity, &token, &hash, None).await;
    assert!(added.unwrap() && store.token(&token, None).await.unwrap().is_some());
    server.crash().unwrap();
    assert!(store.ping().await.is_err());
    server.restart().unwrap();
    // The connection that was kept for it is dead.
    assert!(store.token(&token, None).await.unwrap().is_some());
    assert!(store.has_identity(&identity).await.unwrap());
}

async fn identities_come_and_go(store: Store) {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(store.create_identity().await.unwrap());
    }
    let page = store.identities(1, 1).await.unwrap();
    assert_eq!((page.items.len(), page.total), (1, 3));
    assert!(store.delete_identity(&made[0]).await.unwrap());
    assert!(!store.delete_identity(&made[0]).await.unwrap());
    assert!(!store.has_identity(&made[0]).await.unwrap());
    assert_eq!(store.identities(0, 10).await.unwrap().total, 2);
}

async fn tokens_belong_to_an_identity_and_go_with_it(store: Store) {
    let (one, other) = (
        store.create_identity().await.unwrap(),
        store.create_identity().await.unwrap(),
    );
    let (secret, id) = (Secret::new_token(), TokenId::random());
    let end = super::from_millis(1_900_000_000_123);
    assert!(
        store
            .add_token(&one, &id, &secret.hash(), Some(end))
            .await
            .unwrap()
    );
    let stored = store.token(&id, None).await.unwrap().unwrap();
    assert_eq!((&stored.identity, stored.expires_at), (&one, Some(end)));
    assert!(stored.hash.is_of(&secret) && !stored.hash.is_of(&Secret::new_token()));
    assert_eq!(store.tokens(&one).await.unwrap(), std::slice::from_ref(&id));
    assert!(
        !store.delete_token(&other, &id).await.unwrap(),
        "another identity's token"
    );
    assert!(
        !store
            .add_token(
                &IdentityId::random(),
                &TokenId::random(),
                &secret.hash(),
                None
            )
            .await
            .unwrap()
    );
    store.delete_identity(&one).await.unwrap();
    assert!(store.token(&id, None).await.unwrap().is_none());
}

async fn an_ssh_key_is_one_identitys_and_goes_with_it(store: Store) {
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKglYHQTkyry0gzaiL3YWUPFbvof5pqeuRE+cAxCSHGR";
    let key = PublicKey::parse(line).unwrap();
    let nobody = IdentityId::random();
    let outcome = store.add_ssh_key(&nobody, &key, "x").await.unwrap();
    assert!(matches!(outcome, SshKeyOutcome::NoIdentity));
    let owner = store.create_identity().await.unwrap();
    let other = store.create_identity().await.unwrap();
    let SshKeyOutcome::Added(added) = store.add_ssh_key(&owner, &key, "laptop").await.unwrap()
    else {
        panic!("not added")
    };
    let again = store.add_ssh_key(&other, &key, "theirs").await.unwrap();
    assert!(matches!(again, SshKeyOutcome::AlreadyThere));
    let listed = store.ssh_keys(&owner).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].name.as_str(), listed[0].public_key.as_str()),
        ("laptop", line)
    );
    let found = store
        .ssh_key_by_fingerprint(key.fingerprint())
        .await
        .unwrap();
    assert_eq!(found, Some((added.id.clone(), owner.clone())));
    assert!(store.has_ssh_key(&owner, &added.id).await.unwrap());
    assert!(!store.has_ssh_key(&other, &added.id).await.unwrap());
    assert!(!store.delete_ssh_key(&other, &added.id).await.unwrap());
    assert!(store.delete_ssh_key(&owner, &added.id).await.unwrap());
    store.add_ssh_key(&owner, &key, "again").await.unwrap();
    store.delete_identity(&owner).await.unwrap();
    let gone = store
        .ssh_key_by_fingerprint(key.fingerprint())
        .await
        .unwrap();
    assert_eq!(gone, None);
}

async fn a_grant_is_given_once(store: Store) {
    let (identity, vm) = (
        store.create_identity().await.unwrap(),
        stored_vm(&store).await.id,
    );
    let users = AllowedUsers::Only(vec!["alice".into()]);
    let GrantOutcome::Granted(given) = store
        .add_grant(&identity, &vm, users.clone())
        .await
        .unwrap()
    else {
        panic!("not granted");
    };
    let again = store
        .add_grant(&identity, &vm, AllowedUsers::Any)
        .await
        .unwrap();
    assert!(matches!(again, GrantOutcome::AlreadyGranted));
    let grant = store.grant(&identity, &vm).await.unwrap().unwrap();
    assert_eq!((grant.id, grant.allowed_users), (given.id, users));
    for (identity, vm) in [(&IdentityId::random(), &vm), (&identity, &VmId::random())] {
        let missing = store
            .add_grant(identity, vm, AllowedUsers::Any)
            .await
            .unwrap();
        assert!(matches!(missing, GrantOutcome::Missing));
    }
}

async fn a_grant_changes_and_goes_with_its_vm(store: Store) {
    let (identity, vm) = (
        store.create_identity().await.unwrap(),
        stored_vm(&store).await.id,
    );
    store
        .add_grant(&identity, &vm, AllowedUsers::Any)
        .await
        .unwrap();
    assert_eq!(
        store.granted_vm(&identity, &vm).await.unwrap().unwrap().1,
        AllowedUsers::Any
    );
    let nobody = AllowedUsers::Only(Vec::new());
    assert_eq!(store.granted_vms(&identity).await.unwrap().len(), 1);
    assert!(store.update_grant(&identity, &vm, &nobody).await.unwrap());
    assert_eq!(
        store.granted_vm(&identity, &vm).await.unwrap().unwrap().1,
        nobody
    );
    assert!(
        store.granted_vms(&identity).await.unwrap().is_empty(),
        "granted to nobody"
    );
    assert_eq!(store.grants(&identity, 0, 10).await.unwrap().total, 1);
    assert!(store.delete_vm(&vm).await.unwrap());
    assert!(!store.delete_vm(&vm).await.unwrap());
    assert!(store.grant(&identity, &vm).await.unwrap().is_none());
    assert!(
        !store
            .update_grant(&identity, &vm, &AllowedUsers::Any)
            .await
            .unwrap()
    );
    assert!(!store.delete_grant(&identity, &vm).await.unwrap());
}

async fn a_credential_is_told_with_what_it_reaches_as_it_is_now(store: Store) {
    let identity = store.create_identity().await.unwrap();
    let (vm, other) = (stored_vm(&store).await, stored_vm(&store).await);
    let (token, key) = (TokenId::random(), KeyId::random());
    let hash = Secret::new_token().hash();
    store.add_key(&key, &hash).await.unwrap();
    let added = store.add_token(&identity, &token, &hash, None).await;
    assert!(added.unwrap());
    let granted = async |vm: &VmId| {
        let stored = store.token(&token, Some(vm)).await.unwrap().unwrap();
        assert_eq!(stored.identity, identity);
        stored.granted.map(|(vm, users)| (vm.id, users))
    };
    let mut users = AllowedUsers::Only(vec!["alice".into()]);
    store
        .add_grant(&identity, &vm.id, users.clone())
        .await
        .unwrap();
    assert_eq!(granted(&vm.id).await, Some((vm.id.clone(), users)));
    for nothing in [&other.id, &VmId::random()] {
        assert_eq!(granted(nothing).await, None);
    }
    // Each at once, by whichever connection it is asked for.
    users = AllowedUsers::Any;
    assert!(store.update_grant(&identity, &vm.id, &users).await.unwrap());
    assert_eq!(granted(&vm.id).await, Some((vm.id.clone(), users)));
    assert!(store.delete_grant(&identity, &vm.id).await.unwrap());
    assert_eq!(granted(&vm.id).await, None);
    assert!(store.delete_token(&identity, &token).await.unwrap());
    assert!(store.token(&token, Some(&vm.id)).await.unwrap().is_none());
    let of_key = async |vm: &VmId| {
        let stored = store.key(&key, Some(vm)).await.unwrap().unwrap();
        stored.vm.map(|vm| vm.id)
    };
    assert_eq!(of_key(&other.id).await, Some(other.id.clone()));
    assert_eq!(of_key(&VmId::random()).await, None);
    assert!(store.delete_key(&key).await.unwrap());
    assert!(store.key(&key, Some(&vm.id)).await.unwrap().is_none());
}

async fn only_one_first_key_is_made(store: Store) {
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let secret = Secret::new_key();
            store
                .add_first_key(&KeyId::random(), &secret.hash())
                .await
                .unwrap()
        })
    });
    let mut made = 0;
    for one in tries.collect::<Vec<_>>() {
        made += usize::from(one.await.unwrap());
    }
    assert_eq!((made, store.keys().await.unwrap().len()), (1, 1));
    let key = store.keys().await.unwrap().remove(0);
    assert!(store.key(&key, None).await.unwrap().is_some());
    assert!(store.delete_key(&key).await.unwrap());
    assert!(store.key(&key, None).await.unwrap().is_none());
}

async fn the_account_stays(store: Store) {
    let row = sqlx::query("SELECT id FROM account")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    assert_eq!(row.len(), 1);
    assert_eq!(
        super::column(&row[0], "id", |text| Some(text.to_owned())).unwrap(),
        store.account().as_str()
    );
}

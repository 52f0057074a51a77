//! VMs and their states.

use std::time::{Duration, SystemTime};

use crate::{
    ids::{InstanceId, VmId},
    store::{Hooks, Store, Vm, VmKind, VmState, from_millis, to_millis},
};

fn a_vm() -> Vm {
    let now = from_millis(to_millis(SystemTime::now()));
    let hooks = Hooks {
        start: Some("http://orchestrator/start".into()),
        ..Hooks::default()
    };
    Vm {
        id: VmId::random(),
        kind: VmKind::External {
            hooks,
            secret_file: Some("/etc/guestline/vm.secret".into()),
        },
        state: VmState::Stopped,
        state_since: now,
        instance: None,
        endpoint: Some("unix:/run/agent.sock".parse().unwrap()),
        workdir: Some("/srv".into()),
        idle_timeout: Some(Duration::from_secs(60)),
        last_activity: now,
        created_at: now,
    }
}

pub(super) async fn stored_vm(store: &Store) -> Vm {
    let vm = a_vm();
    store.add_vm(&vm).await.unwrap();
    vm
}

pub(super) async fn a_vm_comes_back_as_it_was_stored(store: Store) {
    let vm = stored_vm(&store).await;
    let back = store.vm(&vm.id).await.unwrap().unwrap();
    assert_eq!(format!("{back:?}"), format!("{vm:?}"));
    let plain = Vm {
        id: VmId::random(),
        endpoint: None,
        workdir: None,
        idle_timeout: None,
        ..a_vm()
    };
    store.add_vm(&plain).await.unwrap();
    assert_eq!(
        format!("{:?}", store.vm(&plain.id).await.unwrap().unwrap()),
        format!("{plain:?}")
    );
    assert_eq!(store.vms().await.unwrap().len(), 2);
    assert!(store.vm(&VmId::random()).await.unwrap().is_none());
}

pub(super) async fn of_many_who_change_a_state_one_succeeds(store: Store) {
    let vm = stored_vm(&store).await;
    let tries = (0..8).map(|_| {
        let (store, vm) = (store.clone(), vm.clone());
        tokio::spawn(async move {
            store
                .change_state(&vm, VmState::Starting)
                .await
                .unwrap()
                .is_some()
        })
    });
    let mut changed = 0;
    for one in tries.collect::<Vec<_>>() {
        changed += usize::from(one.await.unwrap());
    }
    assert_eq!(changed, 1);
    let instance = InstanceId::random();
    let endpoint = "vsock:9:777".parse().unwrap();
    assert!(
        store
            .set_running(&vm.id, &instance, &endpoint)
            .await
            .unwrap()
    );
    assert!(
        !store
            .set_running(&vm.id, &instance, &endpoint)
            .await
            .unwrap(),
        "it was not starting any more"
    );
    let running = store.vm(&vm.id).await.unwrap().unwrap();
    assert_eq!(
        (running.state, running.endpoint, running.instance),
        (VmState::Running, Some(endpoint), Some(instance))
    );
    assert!(
        store
            .change_state(&vm, VmState::Stopped)
            .await
            .unwrap()
            .is_none(),
        "what was seen is long gone"
    );
}

pub(super) async fn a_vm_in_use_does_not_go_to_sleep(store: Store) {
    let vm = Vm {
        state: VmState::Running,
        ..a_vm()
    };
    store.add_vm(&vm).await.unwrap();
    let later = SystemTime::now() + Duration::from_secs(61);
    assert!(store.idle_vms(SystemTime::now()).await.unwrap().is_empty());
    let seen = store.idle_vms(later).await.unwrap().remove(0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(store.touch_vm(&vm.id).await.unwrap());
    assert!(
        store
            .change_state_if_unused(&seen, VmState::Suspending)
            .await
            .unwrap()
            .is_none()
    );
    let seen = store.vm(&vm.id).await.unwrap().unwrap();
    assert!(
        store
            .change_state_if_unused(&seen, VmState::Suspending)
            .await
            .unwrap()
            .is_some()
    );
    assert!(!store.touch_vm(&vm.id).await.unwrap(), "it does not run");
    store.set_idle_timeout(&vm.id, None).await.unwrap();
    assert_eq!(store.vm(&vm.id).await.unwrap().unwrap().idle_timeout, None);
}

pub(super) async fn idle_vms_are_told_with_the_longest_unused_first(store: Store) {
    let now = SystemTime::now();
    let mut unused = Vec::new();
    for hours in [2, 5, 1, 4, 3] {
        let vm = Vm {
            state: VmState::Running,
            last_activity: now - Duration::from_secs(hours * 3600),
            ..a_vm()
        };
        store.add_vm(&vm).await.unwrap();
        unused.push((hours, vm.id));
    }
    unused.sort_by_key(|(hours, _)| std::cmp::Reverse(*hours));
    let idle = store.idle_vms(now).await.unwrap().into_iter();
    let idle: Vec<VmId> = idle.map(|vm| vm.id).collect();
    let unused: Vec<VmId> = unused.into_iter().map(|(_, id)| id).collect();
    assert_eq!(idle, unused);
}

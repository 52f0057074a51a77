//! Detached programs, with real children.

use super::super::{AttachError, AttachEvent, ProcessId};
use super::*;

const RING: usize = 1024;

async fn begin_detached(registry: &ProcessRegistry, spec: ProcessSpec) -> ProcessId {
    let started = registry.run_detached(account(), spec, RING).await;
    started.expect("the program starts").0
}

struct Heard {
    stdout: Vec<u8>,
    lost: u64,
    exit: Option<Exit>,
}

/// All from an offset on, to the exit.
async fn hear(registry: &ProcessRegistry, id: ProcessId, offset: Option<u64>) -> Heard {
    let (mut attachment, _) = registry.attach(id, offset, None).unwrap();
    let mut heard = Heard {
        stdout: Vec::new(),
        lost: 0,
        exit: None,
    };
    let listen = async {
        while let Some(event) = attachment.next().await {
            match event {
                AttachEvent::Output { stream, bytes, .. } => {
                    assert_eq!(stream, Stream::Stdout);
                    heard.stdout.extend(bytes);
                }
                AttachEvent::Lost { stdout, .. } => heard.lost += stdout,
                AttachEvent::Exited(exit) => heard.exit = Some(exit),
            }
        }
    };
    timeout(DEADLINE, listen).await.expect("it ends in time");
    heard
}

#[tokio::test]
async fn output_and_exit_are_there_for_who_comes_later_and_who_comes_back() {
    let registry = ProcessRegistry::default();
    let id = begin_detached(&registry, line("echo one; echo two; exit 3")).await;
    let all = hear(&registry, id, None).await;
    assert_eq!(all.stdout, b"one\ntwo\n");
    let rest = hear(&registry, id, Some(4)).await;
    assert_eq!(rest.stdout, b"two\n");
    for heard in [all, rest] {
        assert_eq!(heard.lost, 0);
        assert_eq!(heard.exit.unwrap().status, ExitStatus::Code(3));
    }
}

#[tokio::test]
async fn nobody_listening_stalls_nothing_and_the_newest_output_is_kept() {
    let registry = ProcessRegistry::default();
    let id = begin_detached(&registry, line("head -c 1000000 /dev/zero; printf end")).await;
    let heard = hear(&registry, id, Some(0)).await;
    // What of it was read before it was lost depends on who was faster; nothing is counted twice or forgotten.
    assert_eq!(heard.lost + heard.stdout.len() as u64, 1_000_003);
    assert!(heard.stdout.ends_with(b"\0end"));
    let late = hear(&registry, id, None).await;
    assert_eq!((late.stdout.len(), late.lost), (RING, 0));
}

#[tokio::test]
async fn input_comes_from_any_client_and_a_client_that_leaves_changes_nothing() {
    let registry = ProcessRegistry::default();
    let mut spec = line("cat");
    spec.stdin = true;
    let id = begin_detached(&registry, spec).await;
    for word in [&b"first "[..], b"second"] {
        let (_, controls) = registry.attach(id, None, None).unwrap();
        let input = Input::Stdin(word.to_vec().into());
        controls.send(input).await.unwrap();
    }
    let (_, controls) = registry.attach(id, None, None).unwrap();
    controls.send(Input::CloseStdin).await.unwrap();
    let heard = hear(&registry, id, None).await;
    assert_eq!(heard.stdout, b"first second");
}

#[tokio::test]
async fn a_signal_passes_input_that_the_program_does_not_take() {
    let registry = ProcessRegistry::default();
    let mut spec = line("sleep 1000");
    spec.stdin = true;
    let id = begin_detached(&registry, spec).await;
    let (_, stuck) = registry.attach(id, None, None).unwrap();
    let feed = async {
        while stuck
            .send(Input::Stdin(vec![0; 1 << 20].into()))
            .await
            .is_ok()
        {}
    };
    let end = async {
        let (_, controls) = registry.attach(id, None, None).unwrap();
        let kill = Input::Signal(SignalNumber::KILL, Target::Group);
        controls.send(kill).await.unwrap();
        hear(&registry, id, None).await
    };
    let (heard, ()) = tokio::join!(end, feed);
    let status = heard.exit.unwrap().status;
    assert!(
        matches!(status, ExitStatus::Signal { number: 9, .. }),
        "{status:?}"
    );
}

#[tokio::test]
async fn who_cannot_be_attached_to_is_told_apart() {
    let registry = ProcessRegistry::default();
    let unknown = registry.attach(ProcessId(7), None, None).unwrap_err();
    assert!(matches!(unknown, AttachError::Unknown(_)), "{unknown:?}");
    let attended = begin(&registry, line("sleep 1000")).await;
    let error = registry.attach(attended.id, None, None).unwrap_err();
    assert!(matches!(error, AttachError::Attended(_)), "{error:?}");
    let id = begin_detached(&registry, line("true")).await;
    let error = registry.attach(id, Some(1), None).unwrap_err();
    assert!(matches!(error, AttachError::BeyondEnd(_)), "{error:?}");
    let group = attended.pid;
    drop(attended);
    group_ends(group).await;
}

#[tokio::test]
async fn a_remembered_program_keeps_the_worker_and_takes_no_place_of_a_running_one() {
    let registry = ProcessRegistry::default();
    let id = begin_detached(&registry, line("true")).await;
    hear(&registry, id, None).await;
    let mut busy = registry.watch_busy();
    timeout(DEADLINE, busy.wait_for(|&busy| busy == 1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(registry.live(), 0);
    let [process] = &registry.list()[..] else {
        panic!("one process is known");
    };
    assert!(process.detached && process.exit.is_some() && process.now.is_none());
    drop(busy);
    let attended = ProcessRegistry::default();
    finish(begin(&attended, line("true")).await).await;
    all_gone(&attended).await;
}

//! Who gets a name, who is forgotten, and what is kept of a machine. No VM is booted.

use super::*;
use crate::soon::comes_true;

#[test]
fn of_two_who_want_a_name_one_gets_it_and_the_other_hears_why() {
    let record = Record::of(&format!("test-record-{}", std::process::id())).unwrap();
    let held = record.begin().unwrap();
    record.write("endpoint", "kept").unwrap();
    for _ in 0..2 {
        assert!(matches!(record.begin(), Err(MachineError::Busy { .. })));
        assert!(matches!(
            stop(record.name()),
            Err(MachineError::Busy { .. })
        ));
    }
    assert_eq!(record.endpoint().as_deref(), Some("kept"));
    // Started: it lives, and holds its name by that.
    record.add_process(QEMU, std::process::id()).unwrap();
    drop(held);
    assert!(matches!(record.begin(), Err(MachineError::Running { .. })));
    // One that was started later is not for the first one's owner to forget.
    record.forget(1);
    assert!(record.is_running().unwrap());
    record.write("processes", "").unwrap();
    record.forget(1);
    assert!(!record.folder.exists());
}

#[test]
fn an_abandoned_machine_is_forgotten_by_whoever_looks() {
    let record = Record::of(&format!("test-owner-{}", std::process::id())).unwrap();
    let is_listed = || {
        list()
            .unwrap()
            .iter()
            .any(|other| other.name == record.name)
    };
    drop(record.begin().unwrap());
    record.own().unwrap();
    assert!(is_listed(), "its owner lives");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    record.write(OWNER, &format!("{} 1\n", child.id())).unwrap();
    child.wait().unwrap();
    let held = record.hold().unwrap();
    assert!(is_listed(), "somebody is at it");
    drop(held);
    assert!(!is_listed() && !record.folder.exists());
}

#[test]
fn a_secret_is_the_machines_own_and_nobody_elses_to_read() {
    let records = ["a", "b"].map(|name| {
        let name = format!("test-secret-{name}-{}", std::process::id());
        Record::of(&name).unwrap()
    });
    let secrets = records.each_ref().map(|record| {
        let _held = record.begin().unwrap();
        assert_eq!(record.secret_file(), None);
        let path = record.make_secret().unwrap();
        assert_eq!(record.secret_file().as_ref(), Some(&path));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::read_to_string(&path).unwrap()
    });
    assert_eq!(secrets.each_ref().map(String::len), [64, 64]);
    assert_ne!(secrets[0], secrets[1]);
    for record in &records {
        record.remove().unwrap();
    }
}

#[test]
fn a_process_that_was_started_and_not_recorded_is_ended_too() {
    let record = Record::of(&format!("test-stray-{}", std::process::id())).unwrap();
    let held = record.begin().unwrap();
    let program = record.path("vhost-device-vsock");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let mut stray = std::process::Command::new(&program)
        .arg("3600")
        .spawn()
        .unwrap();
    // Its words are in /proc a moment after the exec has let its parent go on.
    let unrecorded = || record.unrecorded(&PROGRAMS[1..]).unwrap();
    comes_true(|| !unrecorded().is_empty());
    assert_eq!(unrecorded().len(), 1);
    record.remove().unwrap();
    assert!(!stray.wait().unwrap().success());
    drop(held);
}

#[test]
fn names_stay_within_their_folder() {
    for name in ["", "..", "a/b", "A", "-x", &"x".repeat(33)] {
        assert!(
            matches!(Record::of(name), Err(MachineError::InvalidName { .. })),
            "{name:?}"
        );
    }
}

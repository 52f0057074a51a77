//! What stands before the `@` of a login over SSH: whatever is read are parts of the text, and a secret is shown by no Debug.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/ssh/destination.rs"]
mod destination;

use destination::Destination;

/// Beyond what the harness itself has: the three parts of a name of 512 bytes, and as much again.
const MEMORY: usize = 4096;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    // russh hands over text alone.
    let Ok(name) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY);
    let parsed = Destination::parse(name);
    let _ = ALLOCATOR.set_limit(usize::MAX);
    let Some(parsed) = parsed else {
        return;
    };
    let (vm, user) = (parsed.vm.as_str(), parsed.user.as_str());
    assert!(!vm.contains([':', '+']) && !user.contains(':'));
    let secret = parsed.secret.as_ref();
    let tail = secret.map_or_else(String::new, |secret| format!(":{secret}"));
    let named = format!("{vm}+{user}{tail}");
    let unnamed = format!("{vm}{tail}");
    assert!(named == name || unnamed == name && user == "root");
    assert_eq!(format!("{parsed:?}"), format!("{vm}+{user}"));
});

//! passwd(5), group(5) and the words of getent(1), which users of the guest may have a hand in: chfn(1), a directory.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// Beyond what the harness itself has: some hundred bytes for each line of a few.
const FACTOR: usize = 256;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    // A NUL parts the two files.
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let passwd = parts.next().unwrap_or_default();
    let group = parts.next().unwrap_or_default();
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + FACTOR * bytes.len() + 65536);
    for name in ["alice", "root", "a"] {
        guestline_agent::fuzzing::accounts(passwd, group, name);
    }
    let _ = ALLOCATOR.set_limit(usize::MAX);
});

//! What a client hears before HTTP/2: a VMM's answer to CONNECT, an agent's to the hello and to the proof. It takes no byte
//! behind the last line, and no agent that cannot have the secret.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// Beyond what the harness itself has.
const MEMORY: usize = 1 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    let input = bytes.to_vec();
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + input.len() + MEMORY);
    let heard = guestline_client::fuzzing::hear(&input);
    let _ = ALLOCATOR.set_limit(usize::MAX);
    assert!(!heard.proven, "an agent without the secret was taken");
    for taken in [heard.connected, heard.greeted].into_iter().flatten() {
        assert!(bytes[..taken].ends_with(b"\n"), "not up to a line's end");
        assert!(taken <= 1024);
        assert_eq!(bytes[..taken].iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
    let _ = std::str::from_utf8(bytes).map(str::parse::<guestline_client::Endpoint>);
});

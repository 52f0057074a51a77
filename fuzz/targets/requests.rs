//! Requests from bytes to values of the domain, as the handlers make them, without doing what they say.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// A message of 2 MiB at the most, decoded and converted: its strings and lists once more each.
const MEMORY: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY);
    guestline_agent::fuzzing::requests(bytes);
    let _ = ALLOCATOR.set_limit(usize::MAX);
    // And what a client makes of an error's detail.
    let _ = guestline_proto::decode_error_detail(bytes);
});

//! The first bytes of a connection, at the listener: the hello, and the answer to its challenge. Nothing behind a line is
//! taken, and nobody gets in without the secret.

#![no_main]

use std::{cell::RefCell, sync::LazyLock};

use guestline_proto::{hello::{Hello, MAX_LINE, Reply}, secret::Secret};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Beyond what the harness itself has.
const MEMORY: usize = 1 << 20;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

thread_local! {
    static RUNTIME: LazyLock<RefCell<Runtime>> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build();
        RefCell::new(runtime.expect("a runtime"))
    });
}

fuzz_target!(|bytes: &[u8]| {
    // What the kernel holds between two ends of a pair, and enough for two lines that are too long.
    let bytes = &bytes[..bytes.len().min(4 * MAX_LINE)];
    RUNTIME.with(|runtime| {
        let runtime = runtime.borrow();
        let _ = runtime.block_on(guestline_agent::fuzzing::opening(b"", None));
        let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY);
        let open = runtime.block_on(guestline_agent::fuzzing::opening(bytes, None));
        let closed = runtime.block_on(guestline_agent::fuzzing::opening(bytes, Some(SECRET)));
        let _ = ALLOCATOR.set_limit(usize::MAX);
        assert_eq!(closed, None, "let in without the secret");
        if let Some(left) = open {
            let taken = bytes.len() - left;
            assert!(taken <= MAX_LINE);
            assert!(taken == 0 || bytes[taken - 1] == b'\n');
            assert!(taken > 0 || bytes.starts_with(b"PRI * HTTP/2.0"));
        }
    });
    // What is understood is what would be said.
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if let Ok(hello) = Hello::parse(line) {
        let said = hello.to_line();
        assert_eq!(Hello::parse(said.trim_end_matches('\n').as_bytes()), Ok(hello));
    }
    if let Ok(reply) = Reply::parse(line) {
        let said = reply.to_line();
        assert!(said.len() <= MAX_LINE && said.matches('\n').count() == 1);
    }
    let _ = Secret::parse_all(bytes);
});

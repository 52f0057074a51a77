//! SFTP as the gateway reads it from a client: packets out of what arrives, and each as a request.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/ssh/sftp/attributes.rs"]
#[allow(dead_code, reason = "what is written is not fuzzed")]
mod attributes;
#[path = "../../gateway/src/ssh/sftp/request.rs"]
#[allow(dead_code, reason = "what is written is not fuzzed")]
mod request;
#[path = "../../gateway/src/ssh/sftp/wire.rs"]
#[allow(dead_code, reason = "what is written is not fuzzed")]
mod wire;

use request::{Packet, Request};

/// Beyond what the harness itself has: paths are copied, everything else is a piece of the packet.
const MEMORY: usize = 1024;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

fuzz_target!(|bytes: &[u8]| {
    read(Bytes::copy_from_slice(bytes));
    let mut incoming = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(packet)) = wire::next_packet(&mut incoming) {
        assert!(!packet.is_empty() && packet.len() <= wire::MAX_PACKET);
        taken += 4 + packet.len();
        read(packet);
    }
    assert_eq!(taken + incoming.len(), bytes.len());
});

fn read(packet: Bytes) {
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY + 2 * packet.len());
    let read = Packet::read(packet.clone());
    let _ = ALLOCATOR.set_limit(usize::MAX);
    match read {
        Ok(Packet::Init) => assert_eq!(packet[0], 1),
        Ok(Packet::Request(number, request)) => {
            assert_eq!(packet[1..5], number.to_be_bytes());
            if let Request::Write(handle, _, data) = request {
                assert!(handle.len() + data.len() < packet.len());
            }
        }
        Err(wire::Short) => {}
    }
}

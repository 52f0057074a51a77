//! The protocol between Guestline's agent and its clients: the generated types and services of `guestline.v1`, the
//! hello line that comes before them with the proof of the VM's secret, and how an error detail travels.
//!
//! The `.proto` files beside this one are the API manual; `docs/protocol.md` is for authors of other clients.

mod codec;
#[cfg(test)]
mod contract_tests;
pub mod hello;
pub mod proof;
pub mod secret;
mod status;

pub use codec::{BoundedCodec, BoundedDecoder};
pub use status::{RpcStatus, decode_error_detail, encode_error_detail};

/// Messages and services of the package `guestline.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated from proto/"
)]
pub mod v1 {
    tonic::include_proto!("guestline.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of all services, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The port on which an agent listens unless told otherwise.
///
/// Below 1024, because binding such a vsock port needs CAP_NET_BIND_SERVICE in the guest (`LAST_RESERVED_PORT` in the
/// kernel's net/vmw_vsock/af_vsock.c): no unprivileged user can squat it while the agent is down.
pub const DEFAULT_PORT: u32 = 777;

/// How many bytes one message carries at the most, each way. Chunks of file data and output are at most 1 MiB; the rest
/// is room for the other fields.
pub const MAX_MESSAGE_SIZE: usize = 2 * 1024 * 1024;

/// How many fields a message has at the most, each item of a list counted, for whoever reads one of a stranger's with the
/// generated code. Pages have 512 items, and the longest answer in one piece, all extended attributes of a file, has less than
/// 10,000: the kernel's XATTR_LIST_MAX are 64 KiB of names.
pub const MAX_PARTS: usize = 16 * 1024;

/// The largest chunk of file data, input or output in one message.
pub const MAX_CHUNK_SIZE: usize = 1024 * 1024;

/// Sizes of the HTTP/2 connection that both ends set on purpose.
///
/// The receiver of a byte decides how it may come, so that the client's values govern reads and the agent's govern writes.
pub mod http2 {
    /// SETTINGS_MAX_FRAME_SIZE: a chunk and its heads, so that no chunk leaves a few bytes for a frame of their own. With
    /// the default of 16 KiB, reads over vsock fall to half their speed.
    pub const MAX_FRAME_SIZE: u32 = 1024 * 1024 + 1024;
    /// Per stream: what a receiver holds at the most for one call whose reader stalls. Room for two frames, so that a
    /// sender need not wait for the first one's window update.
    pub const STREAM_WINDOW: u32 = 2 * MAX_FRAME_SIZE;
    /// Streams at once on one connection.
    pub const MAX_CONCURRENT_STREAMS: u32 = 256;
    /// Per connection: room for a full window of every stream, so that stalled ones never take the others' share.
    pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_CONCURRENT_STREAMS;
}

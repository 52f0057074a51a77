//! VM images, and QEMU machines that run them: agent and users are put in at each start.
//!
//! ```text
//! Setup ── what is missing is fetched ──► Image (minimal, debian) ──► Machine::start ──► endpoint
//!          Debian packages, crates         kernel, initramfs, disk     QEMU and its vsock
//! ```
//!
//! The base of an image is cached; the agent and the users come as a second small archive behind the initramfs, made for
//! each start. Nothing of the host's own kernel, boot files or users is touched.

mod disk;
mod error;
mod images;
mod locks;
mod machine;
mod probe;
mod process;
mod record;
mod running;
mod setup;
#[cfg(test)]
mod soon;

pub use disk::Disk;
pub use error::MachineError;
pub use images::ImageKind;
pub use machine::{Channel, Machine, MachineSpec, kernel_vsock_works, kvm_works};
pub use record::{Record, find, list, stop};
pub use running::running;
pub use setup::Setup;

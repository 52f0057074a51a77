//! The host's side of Guestline: files, programs and facts of a VM, as any of its Linux users.
//!
//! ```no_run
//! # async fn demo() -> Result<(), guestline_client::Error> {
//! use guestline_client::Vm;
//!
//! let vm = Vm::new("vsock:3".parse().expect("an endpoint"));
//! let alice = vm.user("alice");
//! alice.files().write("notes.txt", "hello").await?;
//! let made = alice.command("make").arg("-j2").current_dir("/src").output().await?;
//! assert!(made.status.success());
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here does I/O before the first operation. A handle connects then, and again by itself after a connection was
//! lost; an operation that was under way on the lost one fails with [`Error::Lost`] and is never repeated silently.
//!
//! Cancel safety: dropping the future of any operation cancels it in the guest. What that leaves behind is said at the
//! operations that change something.

mod command;
mod connect;
mod endpoint;
mod error;
mod files;
mod process;
mod system;
mod vm;

pub use command::Command;
pub use connect::ConnectError;
pub use endpoint::{Endpoint, ParseEndpointError};
pub use error::{Error, ErrorReason, RefusalReason};
pub use files::{
    Copied, CopyOptions, DirEntry, DirStream, FileReader, FileType, FileWriter, Files, Metadata,
    RenameMode, SetAttributes, Space, WriteOptions,
};
pub use process::{Child, Event, ExitStatus, Input, Output, SignalTarget};
pub use system::{CreateGroup, CreateUser, Disk, Group, Identity, Info, Memory, System, User};
pub use vm::Vm;

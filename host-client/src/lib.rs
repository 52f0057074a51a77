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

mod channel;
mod command;
mod connect;
mod detached;
mod endpoint;
mod error;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod network;
mod pages;
mod process;
mod shown;
mod system;
mod vm;

pub use command::{Command, OnDisconnect};
pub use connect::ConnectError;
pub use detached::{AttachEvent, Attached, Offsets, Process, ProcessState, Processes, Started};
pub use endpoint::{Endpoint, ParseEndpointError};
pub use error::{Error, ErrorReason, RefusalReason};
pub use files::{
    Change, Checksum, ChecksumAlgorithm, Copied, CopyOptions, DirEntry, DirStream,
    ExtendedAttribute, FileReader, FileType, FileWriter, Files, Metadata, PullOptions, PullStream,
    Pulled, PushOptions, PushWriter, Pushed, RenameMode, SetAttributes, Space, WatchStream,
    Watched, WriteOptions,
};
pub use guestline_archive::{Error as FolderError, LeftOut, Observer, OutsideLinks, Unpacked};
pub use guestline_proto::{
    hello::Username,
    proof::ProofError,
    secret::{Secret, SecretError},
};
pub use network::{ForwardStream, ForwardTarget, Network, Port, PortAddress};
pub use process::{Child, Event, ExitStatus, GroupUsage, Input, Output, SignalTarget};
pub use shown::{is_printable, printable};
pub use system::{
    AgentProcess, ClockStep, CpuTime, CreateGroup, CreateService, CreateUser, Disk, Group,
    Identity, Info, LogLine, LogOptions, LogStream, Memory, Metrics, MetricsStream, Pressure,
    Service, ServiceAction, System, User,
};
pub use vm::Vm;

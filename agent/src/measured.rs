//! The paths through the agent whose instructions are counted, as `benches/hot_paths.rs` reaches them: the same code that
//! a worker runs, without its process. Nothing of the program calls this, and nothing of this is in it.

use std::{fs::File, io, os::fd::AsFd};

use nix::sys::wait::waitpid;

use crate::sys::spawn::{Program, spawn};

pub use crate::rpc::measured_files as files;

/// Starts `/bin/true` as a worker starts a program, less its pipes and its cgroup, and waits for its end.
pub fn run_true() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let program = Program {
        candidates: vec![c"/bin/true".into()],
        arguments: vec![c"true".into()],
        environment: vec![c"PATH=/usr/bin:/bin".into()],
        directories: vec![c"/".into()],
        umask: 0o022,
        open_files: None,
    };
    let child = spawn(&program, [null.as_fd(); 3], false, |_| Ok(()));
    waitpid(child.map_err(|error| error.errno)?, None)?;
    Ok(())
}

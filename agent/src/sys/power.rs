//! reboot(2), as far as `nix` does not have it.

use nix::{errno::Errno, libc};

/// Whether this process may use reboot(2) at all: EPERM if not. It asks for nothing.
pub(crate) fn may_reboot() -> Result<(), Errno> {
    // SAFETY: plain numbers. The kernel looks at the rights first (CAP_SYS_BOOT), and then refuses every command with
    // EINVAL, because both magic numbers are wrong.
    let done = unsafe { libc::syscall(libc::SYS_reboot, 0, 0, 0, 0) };
    match Errno::result(done) {
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

//! The kernel's random pool: ioctls of linux/random.h on /dev/random, which `nix` has no calls for.

use std::os::fd::{AsFd, AsRawFd};

use nix::{errno::Errno, libc};

/// The most that one call adds.
pub(crate) const MAX_ADDED: usize = 4096;

/// `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `_IO('R', 0x07)`, since Linux 4.17.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info`, with room for the bytes that follow it.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; MAX_ADDED],
}

/// Mixes the bytes into the pool and counts each bit of them as random. EINVAL for more than [`MAX_ADDED`].
pub(crate) fn add_entropy(random: impl AsFd, entropy: &[u8]) -> Result<(), Errno> {
    let size = entropy.len();
    let mut info = PoolInfo {
        entropy_bits: libc::c_int::try_from(size * 8).map_err(|_| Errno::EINVAL)?,
        size: libc::c_int::try_from(size).map_err(|_| Errno::EINVAL)?,
        bytes: [0; MAX_ADDED],
    };
    let room = info.bytes.get_mut(..size).ok_or(Errno::EINVAL)?;
    room.copy_from_slice(entropy);
    // SAFETY: the kernel reads one rand_pool_info and `size` bytes after its two numbers, which are alive.
    let done = unsafe {
        libc::ioctl(
            random.as_fd().as_raw_fd(),
            RNDADDENTROPY as _,
            &raw const info,
        )
    };
    Errno::result(done).map(drop)
}

/// Makes the generator draw a new key from the pool now.
pub(crate) fn reseed(random: impl AsFd) -> Result<(), Errno> {
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let done = unsafe { libc::ioctl(random.as_fd().as_raw_fd(), RNDRESEEDCRNG as _) };
    Errno::result(done).map(drop)
}

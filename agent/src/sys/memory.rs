//! What the allocator keeps of freed memory: glibc's keeps a lot, for speed; musl's next to nothing, and needs no words. And
//! what the kernel must not take back while somebody eats all memory.

use nix::{
    errno::Errno,
    libc::{MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT, mlock2, mlockall},
};

/// The stack of a thread for a blocking call. Less than 2 MiB, which where transparent huge pages are on would be one
/// page, taken at the first touch; and none of those calls recurses.
pub(crate) const THREAD_STACK: usize = 512 * 1024;

/// Bounds what is kept between calls. Must run before there is a second thread.
///
/// Measured with 1 GiB each way and four writes at once: 47 MiB stayed before this, 9 MiB after it, at the same speed.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
        /// HEAP_MAX_SIZE / 2 of malloc.c, the most that glibc takes. A chunk of a file as a mapping of its own would be
        /// faulted in anew each time, which made writes cost twice the processor time.
        const NEVER_MAPPED: i32 = 32 << 20;
        /// Free memory at the heap's end: some four chunks.
        const KEPT: i32 = 4 << 20;
        // SAFETY: plain numbers, and no other thread allocates meanwhile.
        unsafe { mallopt(M_MMAP_THRESHOLD, NEVER_MAPPED) };
        // SAFETY: the same.
        unsafe { mallopt(M_TRIM_THRESHOLD, KEPT) };
        // One heap for all threads, since each keeps its own: they wait for the kernel far more than for each other.
        // SAFETY: the same.
        unsafe { mallopt(M_ARENA_MAX, 1) };
    }
}

/// Gives free pages back to the kernel, also those within the heap. Takes some milliseconds at the most.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain number; it takes malloc's own lock.
    unsafe {
        nix::libc::malloc_trim(0)
    };
}

/// Keeps all that this process uses in memory, now and later, from its first use on (mlockall(2)). Where nothing else is left
/// to take, the kernel drops the pages of programs, and reads them from the disk again at each step: an agent so treated
/// answers in minutes.
///
/// Needs `CAP_IPC_LOCK`.
pub(crate) fn hold() -> Result<(), Errno> {
    // SAFETY: plain numbers; it changes nothing but where the pages are.
    let result = unsafe { mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) };
    Errno::result(result).map(drop)
}

/// The same for the program itself, without its heap and stacks: those are a user's to fill, and their growth would end at
/// that user's RLIMIT_MEMLOCK.
///
/// Needs `CAP_IPC_LOCK`, or a limit above the program's size.
pub(crate) fn hold_program() -> Result<(), Errno> {
    unsafe extern "C" {
        /// Where the linker puts the program's first byte, and what follows its last (ld(1), PROVIDE).
        static __executable_start: u8;
        static _end: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const _end);
    let length = end.addr() - start.addr();
    // SAFETY: the program's own pages, and nothing but where they are changes.
    let result = unsafe { mlock2(start.cast(), length, MLOCK_ONFAULT) };
    Errno::result(result).map(drop)
}

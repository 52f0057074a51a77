//! What the allocator keeps of freed memory: glibc's keeps a lot, for speed; musl's next to nothing, and needs no words. And
//! what the kernel must not take back while somebody eats all memory.

use nix::{
    errno::Errno,
    libc::{
        MADV_DONTNEED, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT, madvise, mlock2,
        mlockall,
    },
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

/// Gives free pages back where there are many: the next calls pay for them, and dearly where a user has taken all memory.
pub(crate) fn give_back_much() {
    if spare().is_none_or(|spare| spare > MUCH) {
        give_back();
    }
}

/// More than calls that move nothing leave behind.
const MUCH: usize = 256 << 10;

/// Bytes that are resident, no program's or file's, and not in use: those of the heap, and the stacks of threads. `None` where the
/// allocator does not say.
fn spare() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes nothing, and malloc's own lock.
        let heap = unsafe { nix::libc::mallinfo2() };
        // In pages: all, those that are resident, and of these the files' (proc_pid_statm(5)).
        let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
        let mut pages = pages.split(' ').map(|pages| pages.parse::<usize>().ok());
        let (resident, files) = (pages.nth(1)??, pages.next()??);
        let anonymous = resident.saturating_sub(files) * 4096;
        Some(anonymous.saturating_sub(heap.uordblks + heap.hblkhd))
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Gives free pages back to the kernel, also those within the heap. Takes some milliseconds at the most.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain number; it takes malloc's own lock.
    unsafe {
        nix::libc::malloc_trim(0)
    };
}

/// Lets go of the program's code and constants (`MADV_DONTNEED` of madvise(2)): what is used again comes back at its next use, from
/// the kernel's cache of the file. What the start alone needed does not, nor what the kernel put beside it: a fault brings
/// 64 KiB where they are cached, so that a start takes most of the program. To be called before [`hold`].
///
/// Measured with a listener that had started three workers: 3.1 MiB resident before this, 2.8 MiB after it.
pub(crate) fn let_go_of_program() -> Result<(), Errno> {
    let (start, length) = unwritable();
    // SAFETY: mapped from the program's file, and never written to: the kernel reads the same bytes again.
    let result = unsafe { madvise(start.cast_mut().cast(), length, MADV_DONTNEED) };
    Errno::result(result).map(drop)
}

/// Where the program begins, and how many whole pages of it end before the end of its code. What is written to comes after that:
/// so do linkers lay a program out.
fn unwritable() -> (*const u8, usize) {
    unsafe extern "C" {
        /// Where the linker puts the program's first byte, and what follows its code (ld(1), end(3)).
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let (start, end) = (&raw const __executable_start, &raw const etext);
    (start, (end.addr() - start.addr()) / PAGE * PAGE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_is_spare_and_what_is_in_use_is_not() {
        const SIZE: usize = 64 << 20;
        const ALONE: &str = "GUESTLINE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            // In a process of its own: what other tests free beside it is spare too.
            let name = "sys::memory::tests::what_was_freed_is_spare_and_what_is_in_use_is_not";
            let mut test = std::process::Command::new(std::env::current_exe().unwrap());
            let test = test
                .args(["--exact", name])
                .env(ALONE, "")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&test.stdout);
            assert!(test.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        // In pieces, each well below what would be a mapping of its own, of which every other one is freed: nothing of that lies
        // at the heap's end, from where it would go at once.
        let pieces: Vec<Vec<u8>> = (0..SIZE / 65536).map(|_| vec![1; 65536]).collect();
        let in_use = spare().unwrap();
        assert!(in_use < SIZE / 4, "{in_use}");
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(2).collect();
        let freed = spare().unwrap();
        assert!(freed > SIZE / 4, "{freed}");
        give_back();
        let rest = spare().unwrap();
        assert!(rest < SIZE / 4, "{rest}");
        drop(kept);
    }

    /// Of the mappings that lie within the program's code and constants, in KiB, and that they are not writable.
    fn resident() -> u64 {
        let (start, length) = unwritable();
        let program = start.addr()..start.addr() + length;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut is_ours, mut sum) = (false, 0);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let (first, second) = (words.next().unwrap(), words.next().unwrap_or_default());
            if let Some((from, _)) = first.split_once('-') {
                let from = usize::from_str_radix(from, 16).unwrap();
                is_ours = program.contains(&from);
                assert!(!is_ours || !second.contains('w'), "{line}");
            } else if is_ours && first == "Rss:" {
                sum += second.parse::<u64>().unwrap();
            }
        }
        sum
    }

    #[test]
    fn what_is_let_go_of_is_not_resident_and_comes_back() {
        let (start, length) = unwritable();
        let sum = || {
            (0..length).step_by(512).fold(0u64, |sum, at| {
                let place = start.wrapping_add(at);
                // SAFETY: within the program, whose pages are all readable.
                sum + u64::from(unsafe { place.read_volatile() })
            })
        };
        let before = sum();
        let all = resident();
        assert!(all * 1024 >= length as u64);
        let_go_of_program().unwrap();
        let rest = resident();
        assert!(rest < all / 2, "{rest} KiB of {all}");
        assert_eq!(sum(), before);
    }
}

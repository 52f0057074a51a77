//! The bits that this process keeps from what it makes.

use std::fs;

/// The mask where the kernel does not tell it: nothing for anybody else.
const CLOSED: u32 = 0o077;

/// umask(2) of this thread, which it shares with its process. Read where the kernel tells it (Linux 4.7): the system call can
/// only change it, and other threads make files meanwhile.
pub fn umask() -> u32 {
    let status = fs::read_to_string("/proc/thread-self/status");
    status.ok().as_deref().and_then(told).unwrap_or(CLOSED)
}

fn told(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    u32::from_str_radix(line?.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use super::*;

    #[test]
    fn the_umask_is_what_new_files_do_not_get() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o777);
        let file = options.open(folder.path().join("file")).unwrap();
        assert_eq!(umask(), 0o777 & !file.metadata().unwrap().mode());
    }

    #[test]
    fn the_mask_is_read_as_the_kernel_writes_it() {
        assert_eq!(told("Name:\tcat\nUmask:\t0027\nState:\tR\n"), Some(0o27));
        assert_eq!(told("Name:\tcat\nState:\tR\n"), None);
    }
}

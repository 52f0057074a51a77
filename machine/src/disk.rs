//! A machine's own disk: a raw file, made once of its image's.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{MachineError, Setup, locks, setup::programs};

/// A disk of a machine's own.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Where it is, or is made.
    pub path: PathBuf,
    /// In GiB, when it is made; the image's otherwise, which it is never smaller than.
    pub size: Option<u32>,
}

impl Disk {
    /// Beside its place first, so that a disk that is there is whole. Holes stay holes, and blocks are shared where the file
    /// system can. The file system grows before anybody has it mounted.
    pub(crate) fn make_once(&self, setup: &Setup, base: &Path) -> Result<(), MachineError> {
        if self.path.exists() {
            return Ok(());
        }
        let scratch = self.scratch();
        let made = self.make(setup, base, &scratch).and_then(|()| {
            fs::rename(&scratch, &self.path).map_err(MachineError::file("make", &self.path))
        });
        if made.is_err() {
            // What it failed of counts.
            let _ = fs::remove_file(&scratch);
        }
        made
    }

    fn make(&self, setup: &Setup, base: &Path, scratch: &Path) -> Result<(), MachineError> {
        let (from, to) = (base.to_string_lossy(), scratch.to_string_lossy());
        let arguments = ["--reflink=auto", "--sparse=always", "--", &from, &to];
        programs::run_until(setup.end(), "cp", &arguments)?;
        if let Some(gib) = self.size
            && grow(scratch, u64::from(gib) << 30)?
        {
            let resize2fs = setup.resize2fs()?;
            programs::run_until(setup.end(), &resize2fs.to_string_lossy(), &[&to])?;
        }
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.path.with_extension("part")
    }

    /// Removes it, and what is left of one whose making was cut off. After a failure it is there.
    pub fn remove(&self) -> Result<(), MachineError> {
        for path in [&self.scratch(), &self.path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(MachineError::file("remove", path))?,
            }
        }
        Ok(())
    }

    /// Whether somebody has it as a machine's disk, be it in another PID namespace or on another host: QEMU holds locks on
    /// it. One that is not there is not in use.
    pub fn is_in_use(&self) -> Result<bool, MachineError> {
        locks::is_locked(&self.path)
    }
}

/// The file alone. `false`: it has that size.
fn grow(path: &Path, size: u64) -> Result<bool, MachineError> {
    let grown = || {
        let file = File::options().write(true).open(path)?;
        let grows = file.metadata()?.len() < size;
        if grows {
            file.set_len(size)?;
        }
        Ok(grows)
    };
    grown().map_err(MachineError::file("grow", path))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };

    use super::*;
    use crate::soon::comes_true;

    #[test]
    fn a_disk_has_the_size_that_was_asked_for_and_not_less_than_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(folder.path());
        let base = folder.path().join("base");
        let mke2fs = setup.mke2fs().unwrap();
        let arguments = ["-q", "-t", "ext4", &base.to_string_lossy(), "2G"];
        programs::run(&mke2fs.to_string_lossy(), &arguments).unwrap();
        for (size, bytes) in [(None, 2 << 30), (Some(1), 2 << 30), (Some(5), 5 << 30)] {
            let path = folder.path().join(format!("{size:?}.disk"));
            let disk = Disk { path, size };
            disk.make_once(&setup, &base).unwrap();
            assert_eq!(disk.path.metadata().unwrap().len(), bytes);
            assert_eq!(file_system_size(&disk.path), bytes);
        }
    }

    #[test]
    fn nothing_is_left_of_a_disk_that_was_given_up() {
        let folder = tempfile::tempdir().unwrap();
        // A copy of this ends when it is ended: who writes to it never closes it.
        let base = folder.path().join("base");
        nix::unistd::mkfifo(&base, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let writer = File::options().read(true).write(true).open(&base).unwrap();
        let path = folder.path().join("x.disk");
        let disk = Disk { path, size: None };
        let end = Instant::now() + Duration::from_millis(500);
        let setup = Setup::new(folder.path()).until(end);
        let made = disk.make_once(&setup, &base);
        assert!(matches!(made, Err(MachineError::Late { .. })), "{made:?}");
        let left = || ["x.disk", "x.part"].map(|name| folder.path().join(name).exists());
        assert_eq!(left(), [false, false]);
        // Its maker was killed.
        for path in [&disk.path, &disk.scratch()] {
            File::create(path).unwrap();
        }
        disk.remove().unwrap();
        assert_eq!(left(), [false, false]);
        disk.remove().unwrap();
        drop(writer);
    }

    #[test]
    fn a_disk_that_cannot_be_removed_with_all_that_is_left_of_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.disk");
        let disk = Disk { path, size: None };
        File::create(&disk.path).unwrap();
        // No file, which unlink(2) removes.
        fs::create_dir(disk.scratch()).unwrap();
        assert!(disk.remove().is_err());
        assert!(disk.path.exists());
        fs::remove_dir(disk.scratch()).unwrap();
        disk.remove().unwrap();
        assert!(!disk.path.exists());
    }

    #[test]
    fn a_disk_is_in_use_while_somebody_holds_a_lock_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.disk");
        let disk = Disk { path, size: None };
        assert!(!disk.is_in_use().unwrap());
        let file = File::create_new(&disk.path).unwrap();
        assert!(!disk.is_in_use().unwrap());
        // As QEMU has it: to read, and of a byte of its own (block/file-posix.c, RAW_LOCK_PERM_BASE).
        let lock = libc::flock {
            l_type: libc::F_RDLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 100,
            l_len: 1,
            l_pid: 0,
        };
        let reading = File::open(&disk.path).unwrap();
        fcntl(&reading, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert!(disk.is_in_use().unwrap());
        drop((file, reading));
        // A process that another test is just forking has it too, until its exec.
        assert!(comes_true(|| !disk.is_in_use().unwrap()));
    }

    /// Its superblock says so: blocks at 4, and the logarithm of their KiB at 24 (Documentation/filesystems/ext4/super.rst).
    fn file_system_size(path: &Path) -> u64 {
        use std::os::unix::fs::FileExt;
        let mut block = [0; 1024];
        let file = File::open(path).unwrap();
        file.read_exact_at(&mut block, 1024).unwrap();
        let number = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        u64::from(number(4)) << (10 + number(24))
    }
}

//! Which machines run, by the processes of this host and not by records: whoever started a machine may have kept its record
//! elsewhere (`XDG_RUNTIME_DIR`), and a clean-up of old files may have taken the record away.

use std::path::Path;

use crate::{
    MachineError, Record,
    process::{self, Program},
    record::QEMU_PROGRAM,
};

/// A word on the kernel's command line: which machine a QEMU is.
pub(crate) const NAME_WORD: &str = "guestline.name=";

/// All machines of this user whose QEMU lives. What is not in this list does not run here; where that is not certain, it is
/// an error.
pub fn running() -> Result<Vec<Record>, MachineError> {
    let all = process::all().map_err(MachineError::file("list processes in", "/proc"))?;
    Ok(all.iter().filter_map(machine_of).collect())
}

/// By what QEMU was told: the machine's name, and a file in its folder.
fn machine_of(program: &Program) -> Option<Record> {
    let arguments = &program.arguments;
    if !program.is(QEMU_PROGRAM) {
        return None;
    }
    let after = |option: &str| {
        let at = arguments.iter().position(|argument| argument == option)?;
        arguments.get(at + 1)
    };
    let mut words = after("-append")?.split(' ');
    let name = words.find_map(|word| word.strip_prefix(NAME_WORD))?;
    let folder = Path::new(after("-initrd")?).parent()?;
    Some(Record::at(name, folder))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Command, Stdio},
    };

    use super::*;
    use crate::soon::comes_true;

    #[test]
    fn a_machine_is_found_by_its_qemu_wherever_its_record_was_and_ends_by_that() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("elsewhere/guestline/vm");
        fs::create_dir_all(&place).unwrap();
        let name = format!("test-running-{}", std::process::id());
        let find = || {
            let all = running().unwrap();
            all.into_iter().find(|record| record.name() == name)
        };
        assert!(find().is_none());
        // A shell of that name, with QEMU's arguments as its own.
        let mut qemu = Command::new("sh")
            .arg0("qemu-system-x86_64")
            .args(["-c", "read line", "sh", "-initrd"])
            .arg(place.join("initramfs"))
            .args(["-append", &format!("quiet {NAME_WORD}{name} x")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let _stdin = qemu.stdin.take();
        // Its words are in /proc a moment after the exec has let its parent go on.
        assert!(comes_true(|| find().is_some()), "it is not found");
        let found = find().unwrap();
        fs::remove_dir_all(folder.path().join("elsewhere")).unwrap();
        assert_eq!(find().map(|record| record.path("")), Some(found.path("")));
        found.pause().unwrap();
        found.resume().unwrap();
        let ending = std::thread::spawn(move || found.end());
        assert_eq!(qemu.wait().unwrap().signal(), Some(15));
        ending.join().unwrap().unwrap();
        assert!(find().is_none());
    }
}

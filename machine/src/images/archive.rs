//! An initramfs archive, the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

use cpio::{NewcBuilder, newc::trailer};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Entries in the order in which they are unpacked.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    mode: u32,
    owner: u32,
    content: Vec<u8>,
}

impl Archive {
    /// A directory; its parents must have been added.
    pub(crate) fn directory(&mut self, name: &str, permissions: u32, owner: u32) {
        self.add(name, DIRECTORY | permissions, owner, Vec::new());
    }

    /// A regular file.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, owner: u32, content: Vec<u8>) {
        self.add(name, REGULAR | permissions, owner, content);
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) {
        self.add(name, SYMLINK | 0o777, 0, target.as_bytes().to_vec());
    }

    fn add(&mut self, name: &str, mode: u32, owner: u32, content: Vec<u8>) {
        self.entries.push(Entry {
            name: name.into(),
            mode,
            owner,
            content,
        });
    }

    /// The archive's bytes, padded so that another may follow.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let builder = NewcBuilder::new(&entry.name)
                .ino(number as u32 + 1)
                .nlink(1);
            let builder = builder.mode(entry.mode).uid(entry.owner).gid(entry.owner);
            let mut writer = builder.write(&mut bytes, entry.content.len() as u32);
            writer.write_all(&entry.content)?;
            writer.finish()?;
        }
        trailer(&mut bytes)?;
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Ok(bytes)
    }
}

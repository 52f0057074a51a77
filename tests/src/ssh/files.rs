//! Files that are sent, and what they are held against.

use std::{fs, path::Path};

use super::client::ended;
use crate::runner::Outcome;

/// Some files, folders, modes and links.
pub(super) fn make_tree(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(folder.join("sub/deep"))?;
    fs::write(folder.join("empty"), "")?;
    fs::write(folder.join("sub/text"), "hello\n")?;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|it| (it / 7) as u8).collect();
    fs::write(folder.join("sub/deep/bytes"), bytes)?;
    fs::write(folder.join("script"), "#!/bin/sh\necho hi\n")?;
    let mode = fs::Permissions::from_mode(0o750);
    Ok(fs::set_permissions(folder.join("script"), mode)?)
}

/// So many small files, a hundred in a folder.
pub(super) fn make_many(folder: &Path, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let part = folder.join((number / 100).to_string());
        if number % 100 == 0 {
            fs::create_dir_all(&part)?;
        }
        fs::write(part.join(number.to_string()), format!("file {number}\n"))?;
    }
    Ok(())
}

/// By diff(1).
pub(super) async fn same(one: &Path, other: &Path) -> Outcome {
    let mut diff = tokio::process::Command::new("diff");
    diff.arg("-r").args([one, other]);
    ended(diff).await?.ok().map(drop)
}

/// What a shell's line prints, which is a checksum.
pub(super) async fn sha256(line: &str) -> anyhow::Result<String> {
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-c", line]);
    ended(sh).await?.ok()
}

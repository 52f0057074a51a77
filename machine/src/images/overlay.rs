//! The second archive, made for each start: the agent and the users.

use std::path::Path;

use super::{archive::Archive, read};
use crate::MachineError;

/// The first user's uid; the others follow.
const FIRST_UID: u32 = 1000;

/// `/overlay/agent`, and `/overlay/{passwd,group,shadow}` with a line a user.
pub(crate) fn overlay(agent: &Path, users: &[String]) -> Result<Vec<u8>, MachineError> {
    let mut archive = Archive::default();
    archive.directory("overlay", 0o755, 0);
    archive.file("overlay/agent", 0o755, 0, read(agent)?);
    let lines = |line: &dyn Fn(&str, u32) -> String| -> Vec<u8> {
        let numbered = users.iter().zip(FIRST_UID..);
        numbered
            .map(|(user, uid)| line(user, uid))
            .collect::<String>()
            .into_bytes()
    };
    archive.file(
        "overlay/passwd",
        0o644,
        0,
        lines(&|user, uid| format!("{user}:x:{uid}:{uid}::/home/{user}:/bin/sh\n")),
    );
    archive.file(
        "overlay/group",
        0o644,
        0,
        lines(&|user, uid| format!("{user}:x:{uid}:\n")),
    );
    archive.file(
        "overlay/shadow",
        0o600,
        0,
        lines(&|user, _| format!("{user}:!:19000:0:99999:7:::\n")),
    );
    archive
        .to_bytes()
        .map_err(MachineError::file("make", "the overlay archive"))
}

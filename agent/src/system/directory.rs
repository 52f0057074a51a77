//! Accounts of a directory (LDAP, SSSD, systemd-homed): names that the guest's own files do not have are asked of its
//! `getent`, which knows what nsswitch.conf(5) says. Another program, because a static binary must never load NSS
//! modules; bounded in time and output, because a directory's server may be slow, gone or strange.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use thiserror::Error;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};

use super::accounts::{self, Account, AccountError};

/// Where it is, if it is anywhere.
const GETENT: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];

/// How long an account's lookup may take: less than the time that a client gives its connecting (5 s).
const DEADLINE: Duration = Duration::from_secs(2);

/// The longest answer that is taken: some five thousand groups, as many as a worker can be told of.
const MAX_ANSWER: u64 = 64 * 1024;

/// What getent(1) exits with when the database has no such key.
const NO_SUCH_KEY: i32 = 2;

/// Why it is not known whether there is such an account.
#[derive(Debug, Error)]
pub(crate) enum LookupError {
    #[error(transparent)]
    Files(#[from] AccountError),
    #[error("cannot run {}", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("the guest's getent did not answer within {} s", DEADLINE.as_secs())]
    TooLate,
    #[error("the guest's getent answered more than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("the guest's getent failed on {database} ({status})")]
    Failed {
        database: &'static str,
        status: ExitStatus,
    },
    #[error("the guest's getent did not say which groups {0:?} is in")]
    NoGroups(String),
}

/// The account of that name, of the guest's own files or else of its directory; `None` if neither has it. Names only:
/// "1000" is not uid 1000. Dropping the future ends what it started.
pub(crate) async fn find(name: &str) -> Result<Option<Account>, LookupError> {
    if let Some(account) = accounts::find(name)? {
        return Ok(Some(account));
    }
    match GETENT.iter().map(Path::new).find(|path| path.exists()) {
        Some(getent) => ask(getent, name).await,
        None => Ok(None),
    }
}

async fn ask(getent: &Path, name: &str) -> Result<Option<Account>, LookupError> {
    // It would be an option, and is no name that useradd(8) would take.
    if name.starts_with('-') {
        return Ok(None);
    }
    let asking = async {
        let Some(line) = answer(getent, "passwd", name).await? else {
            return Ok(None);
        };
        // A number is answered with the user of that uid, and an alias with whom it stands for.
        let user = accounts::parse_user(line.trim_ascii_end()).filter(|user| user.name == name);
        let Some(user) = user else { return Ok(None) };
        let groups = answer(getent, "initgroups", name).await?;
        let groups = groups.and_then(|line| parse_groups(&line, name));
        // An account that lost its groups is another one.
        let groups = groups.ok_or_else(|| LookupError::NoGroups(name.into()))?;
        Ok(Some(Account::with_groups(&user, groups)))
    };
    let answered = timeout(DEADLINE, asking).await;
    answered.unwrap_or(Err(LookupError::TooLate))
}

/// What getent prints for a key; `None` if the database does not have it.
async fn answer(
    getent: &Path,
    database: &'static str,
    key: &str,
) -> Result<Option<Vec<u8>>, LookupError> {
    let mut command = Command::new(getent);
    command
        .args([database, key])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let failed = |source| LookupError::Run {
        path: getent.into(),
        source,
    };
    let mut running = Running(command.spawn().map_err(failed)?);
    let mut bytes = Vec::new();
    if let Some(stdout) = running.0.stdout.take() {
        let mut bounded = stdout.take(MAX_ANSWER + 1);
        bounded.read_to_end(&mut bytes).await.map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(LookupError::TooLong);
    }
    let status = running.0.wait().await.map_err(failed)?;
    match status.code() {
        Some(0) => Ok(Some(bytes)),
        Some(NO_SUCH_KEY) => Ok(None),
        _ => Err(LookupError::Failed { database, status }),
    }
}

/// A child whose process group ends with this value; the runtime reaps it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Waited for, it has no number any more, which may be another's by now.
        if let Some(pid) = self.0.id() {
            let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// `name  gid gid …`, without the primary group.
fn parse_groups(line: &[u8], name: &str) -> Option<Vec<u32>> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    (words.next() == Some(name)).then_some(())?;
    words.map(|gid| gid.parse().ok()).collect()
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    //! For fuzz/: what a getent may say.

    pub(crate) fn parse(said: &[u8], name: &str) {
        for line in said.split(|&byte| byte == b'\n') {
            let _ = super::parse_groups(line, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

    use super::*;

    /// What a getent that is this script says about "dora".
    async fn asked(script: &str, name: &str) -> Result<Option<Account>, LookupError> {
        let folder = tempfile::tempdir().unwrap();
        let getent = folder.path().join("getent");
        fs::write(&getent, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&getent, fs::Permissions::from_mode(0o755)).unwrap();
        loop {
            match ask(&getent, name).await {
                // Another test's fork holds the script open for writing until it executes.
                Err(LookupError::Run { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                answer => return answer,
            }
        }
    }

    const DORA: &str = "case $1 in
        passwd) echo 'dora:*:70000:70000:Dora:/home/dora:/bin/sh';;
        initgroups) printf '%-21s 70001 70000 27\\n' \"$2\";;
    esac";

    #[tokio::test]
    async fn an_account_has_its_primary_group_first_and_each_group_once() {
        let dora = asked(DORA, "dora").await.unwrap().unwrap();
        assert_eq!(
            (dora.name.as_str(), dora.uid, dora.gid),
            ("dora", 70000, 70000)
        );
        assert_eq!(dora.groups, [70000, 70001, 27]);
        assert_eq!(
            (dora.home, dora.shell),
            ("/home/dora".into(), "/bin/sh".into())
        );
    }

    #[tokio::test]
    async fn only_the_very_name_that_was_asked_for_is_an_answer() {
        for other in ["70000", "DORA", "--help", "-s"] {
            assert_eq!(asked(DORA, other).await.unwrap(), None, "{other}");
        }
        assert_eq!(asked("exit 2", "dora").await.unwrap(), None);
        assert_eq!(asked("echo junk", "dora").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_account_without_its_groups_is_an_error_not_an_account() {
        for groups in ["exit 2", "echo dora 1 x", "echo eve 1", "true"] {
            let script =
                format!("[ $1 = passwd ] && echo dora:x:1:1::/:/bin/sh || {{ {groups}; }}");
            let error = asked(&script, "dora").await.unwrap_err();
            assert!(
                matches!(error, LookupError::NoGroups(_)),
                "{groups}: {error}"
            );
        }
        let error = asked("exit 1", "dora").await.unwrap_err();
        assert!(matches!(error, LookupError::Failed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_its_source_ended() {
        let error = asked("exec yes", "dora").await.unwrap_err();
        assert!(matches!(error, LookupError::TooLong), "{error}");
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline_and_nothing_of_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {0}; wait", pids.display());
        let start = Instant::now();
        let error = asked(&script, "dora").await.unwrap_err();
        assert!(matches!(error, LookupError::TooLate), "{error}");
        let child = fs::read_to_string(pids).unwrap();
        let lives = || fs::read(format!("/proc/{}/stat", child.trim()));
        // Killed, it is gone, or a zombie of whoever adopted it.
        while lives().is_ok_and(|stat| !String::from_utf8_lossy(&stat).contains(") Z ")) {
            assert!(start.elapsed() < DEADLINE * 30, "its child lives on");
            tokio::task::yield_now().await;
        }
    }
}

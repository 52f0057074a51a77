//! What must be as before, whatever went wrong in between: nothing of the agent's is left over, and it answers.

use std::time::Duration;

use anyhow::ensure;

use super::shell;
use crate::{eventually::eventually, runner::Outcome, target::Target};

/// Slow machines reap slowly.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the agent holds of a guest, as root's shell prints it: the listener's descriptors by kind, each user's workers, zombies,
/// groups of alice's and bob's, unfinished files, mounts.
const LOOK: &str = r#"
agent=$(readlink /proc/$PPID/exe)
for p in /proc/[0-9]*; do
  [ "$(readlink $p/exe)" = "$agent" ] || continue
  words=$(tr '\0' ' ' < $p/cmdline)
  case $words in
  *" worker -- "*) workers=$((workers + 1)); echo "a worker of ${words##* -- }";;
  *freezer*) echo "a freezer";;
  *)
    listing=$(ls -l $p/fd | sed -n 's/.* -> //; s/^[^:]*:/&/p')
    pidfds=$(echo "$listing" | grep -c pidfd)
    echo "$listing" | sed 's/:\[[0-9]*\]//' | grep -v pidfd | sort | uniq -c | sed 's/^/a listener with /'
    ;;
  esac
done > /run/look; sort /run/look
[ $pidfds -le $((3 * workers)) ] || echo "$pidfds pidfds for $workers workers"
echo "$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ') zombies"
set -- /sys/fs/cgroup/guestline/u100[01]-*; [ -e "$1" ] || shift; echo "$# groups"
echo "$(find /home /mnt -xdev -name '.guestline-*' 2>/dev/null | wc -l) unfinished files"
echo "$(wc -l < /proc/mounts) mounts"
"#;

/// What there is while nothing goes on.
pub(super) struct Before(String);

impl Before {
    /// Waits until it is the same twice, with nobody to be reaped, in case something is on its way.
    pub(super) async fn of(target: &Target) -> anyhow::Result<Self> {
        let mut seen = look(target).await?;
        eventually("the guest is quiet", PATIENCE, async || {
            let now = look(target).await?;
            Ok(std::mem::replace(&mut seen, now.clone()) == now && now.contains("\n0 zombies\n"))
        })
        .await?;
        Ok(Self(seen))
    }

    /// Waits until all is as it was.
    pub(super) async fn holds(&self, target: &Target) -> Outcome {
        let mut last = String::new();
        let result = eventually("all is as it was", PATIENCE, async || {
            // The listener may be starting just now.
            last = look(target).await.unwrap_or_else(|error| error.to_string());
            Ok(last == self.0)
        });
        let result = result.await;
        result.map_err(|error| error.context(format!("before:\n{}now:\n{last}", self.0)))
    }
}

/// Each user has a worker, since each is asked: the agent answers.
async fn look(target: &Target) -> anyhow::Result<String> {
    for user in ["alice", "bob"] {
        target.user(user).files().stat("/").await?;
    }
    let (ok, seen) = shell(&target.user("root"), LOOK).await?;
    ensure!(ok, "root cannot look: {seen}");
    Ok(seen)
}

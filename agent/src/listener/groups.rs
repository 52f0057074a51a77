//! A cgroup for each program, made, entered, killed and removed by root at the wish of the worker that started it, so that
//! no program walks out of its own.
//!
//! A worker's wish is a stranger's: it may only put its own living children into a new group, and only kill or
//! release groups of its uid, which the group's name carries. Nothing is remembered that a restarted listener would miss.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};
use thiserror::Error;

use crate::sys::{
    cgroup::{self, Group, Limits},
    child::{kill_process, open_pidfd},
    errno_of,
};

/// Groups of one uid at one time: more than the programs that a worker runs at once.
const MAX_PER_USER: usize = 2048;

/// How many are killed one by one before others have their turn: some milliseconds' work.
const KILLED_AT_ONCE: usize = 256;

/// The period of cpu.max, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// Whom a wish comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wisher {
    pub(super) pid: i32,
    pub(super) uid: u32,
}

/// The groups of all users.
#[derive(Debug)]
pub(super) struct Groups {
    /// How many there are, by uid.
    counts: HashMap<u32, usize>,
    /// Released while something still lived in them.
    leftovers: Vec<(u32, Group)>,
}

/// Why there is no group.
#[derive(Debug, Error)]
pub(super) enum GroupError {
    #[error("not a child of this worker's, or no longer outside of a group")]
    NotYours,
    #[error("{MAX_PER_USER} groups of this user are there already")]
    TooMany,
    #[error("making the group")]
    Make(#[source] io::Error),
    #[error("setting {0}, which needs that controller of cgroup v2")]
    Limit(&'static str, #[source] io::Error),
    #[error("the guest has no cgroup v2")]
    Absent,
    #[error("nobody keeps the groups")]
    Unkept,
    #[error("entering the group")]
    Enter(#[source] io::Error),
}

impl GroupError {
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::NotYours => Errno::EPERM,
            Self::TooMany => Errno::EAGAIN,
            Self::Absent => Errno::EOPNOTSUPP,
            Self::Unkept => Errno::EIO,
            Self::Make(error) | Self::Limit(_, error) | Self::Enter(error) => errno_of(error),
        }
    }
}

impl Groups {
    /// `None` where the guest has no cgroup v2 that we may use.
    pub(super) fn open() -> Option<Self> {
        let parent = Group::parent();
        if !cgroup::is_available() {
            return None;
        }
        match fs::create_dir(parent.path()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                tracing::warn!(%error, "no cgroup for programs");
                return None;
            }
            _ => {}
        }
        if let Err(error) = cgroup::favour_changes() {
            tracing::info!(%error, "the kernel knows no cheap changes of cgroups: programs start slower");
        }
        // One by one: a controller that the guest does not have is missed by whoever asks for its limit.
        for controller in ["+memory", "+pids", "+cpu"] {
            let _ = fs::write(
                format!("{}/cgroup.subtree_control", cgroup::MOUNT),
                controller,
            );
            let _ = parent.write("cgroup.subtree_control", controller);
        }
        let mut groups = Self {
            counts: HashMap::new(),
            leftovers: Vec::new(),
        };
        groups.adopt();
        Some(groups)
    }

    /// Those of a former listener, each removed as soon as nothing lives in it: its worker may be gone.
    fn adopt(&mut self) {
        for entry in fs::read_dir(Group::parent().path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let Some((uid, group)) = name.to_str().and_then(parse) else {
                continue;
            };
            *self.counts.entry(uid).or_default() += 1;
            if !self.remove(uid, &group) {
                // The former listener may have ended in the midst of a killing.
                let _ = group.write("cgroup.freeze", "0");
                self.leftovers.push((uid, group));
            }
        }
    }

    /// Makes a group with these limits and puts the child, which waits for it, into it. Gives the group's name.
    pub(super) fn confine(
        &mut self,
        wisher: Wisher,
        child: i32,
        limits: Limits,
    ) -> Result<String, GroupError> {
        // Holds on to this very process: whether the pid still was its own is looked at again afterwards.
        let pidfd = open_pidfd(Pid::from_raw(child)).map_err(|_| GroupError::NotYours)?;
        if !is_child_outside(wisher, child) {
            return Err(GroupError::NotYours);
        }
        if self
            .counts
            .get(&wisher.uid)
            .is_some_and(|&count| count >= MAX_PER_USER)
        {
            return Err(GroupError::TooMany);
        }
        let (name, group) = make(wisher.uid, child).map_err(GroupError::Make)?;
        *self.counts.entry(wisher.uid).or_default() += 1;
        let entered = limit(&group, limits).and_then(|()| {
            let entered = group.write("cgroup.procs", &child.to_string());
            entered.map_err(GroupError::Enter)?;
            if has_exited(&pidfd) {
                // Whoever has the pid now was put there by mistake, and would be this user's to kill. Pids come round after some
                // ten thousand at the least. What is this user's stays: the child may have started it in the group.
                let is_there = group.members().unwrap_or_default().contains(&child);
                if is_there && !has_uids(&told_of(child, "status"), wisher.uid) {
                    let root = format!("{}/cgroup.procs", cgroup::MOUNT);
                    let _ = fs::write(root, child.to_string());
                }
                return Err(GroupError::NotYours);
            }
            Ok(())
        });
        if let Err(error) = entered {
            self.remove(wisher.uid, &group);
            return Err(error);
        }
        Ok(name)
    }

    /// SIGKILL to all in it at once (cgroup.kill, Linux 5.14), or where the kernel cannot, what is to be done one by one.
    pub(super) fn kill(&self, wisher: Wisher, name: &str) -> Option<Killing> {
        let group = owned(wisher, name)?;
        if group.write("cgroup.kill", "1").is_ok() {
            return None;
        }
        let _ = group.write("cgroup.freeze", "1");
        Some(Killing::of(group))
    }

    /// The worker needs it no more: removed as soon as nothing lives in it.
    pub(super) fn release(&mut self, wisher: Wisher, name: &str) {
        if let Some(group) = owned(wisher, name)
            && !self.remove(wisher.uid, &group)
            && !self.leftovers.iter().any(|(_, known)| *known == group)
        {
            self.leftovers.push((wisher.uid, group));
        }
    }

    /// Whether [`Groups::sweep`] has something to do.
    pub(super) fn has_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// Removes the released groups that have become empty.
    pub(super) fn sweep(&mut self) {
        for (uid, group) in std::mem::take(&mut self.leftovers) {
            if !self.remove(uid, &group) {
                self.leftovers.push((uid, group));
            }
        }
    }

    /// Of a worker that is gone: its groups are released, as it cannot do that itself.
    pub(super) fn release_all(&mut self, uid: u32) {
        for entry in fs::read_dir(Group::parent().path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if let Some(name) = name.to_str()
                && parse(name).is_some_and(|(owner, _)| owner == uid)
            {
                self.release(Wisher { pid: 0, uid }, name);
            }
        }
    }

    /// Whether it is gone.
    fn remove(&mut self, uid: u32, group: &Group) -> bool {
        match fs::remove_dir(group.path()) {
            Ok(()) => {
                if let Some(count) = self.counts.get_mut(&uid) {
                    *count = count.saturating_sub(1);
                }
                true
            }
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// A group whose members are killed one by one, in steps. Frozen meanwhile, so that none of them starts another.
#[derive(Debug)]
pub(super) struct Killing {
    group: Group,
    /// Whose turn is still to come.
    listed: Vec<i32>,
}

impl Killing {
    fn of(group: Group) -> Self {
        let listed = group.members().unwrap_or_default();
        Self { group, listed }
    }

    /// Kills the next of them. `None`: that were all, and what survives runs again.
    pub(super) fn go_on(mut self) -> Option<Self> {
        let rest = self.listed.len().saturating_sub(KILLED_AT_ONCE);
        kill_listed(&self.group, &self.listed.split_off(rest));
        if !self.listed.is_empty() {
            return Some(self);
        }
        let _ = self.group.write("cgroup.freeze", "0");
        None
    }
}

/// Those of the listed who are in the group now, and nobody else: between the list and the kill a pid may have gone to another
/// process. What a descriptor holds is in the group, or has exited, if its pid is listed again once it is held.
fn kill_listed(group: &Group, listed: &[i32]) {
    let hold = |&pid: &i32| {
        // A process of another pid namespace has none here, and no descriptor: the kernel lists it as 0.
        let pidfd = open_pidfd(Pid::from_raw(pid)).ok()?;
        Some((pid, pidfd))
    };
    let held: Vec<(i32, OwnedFd)> = listed.iter().filter_map(hold).collect();
    let members: HashSet<i32> = group.members().unwrap_or_default().into_iter().collect();
    for (_, pidfd) in held.iter().filter(|(pid, _)| members.contains(pid)) {
        // One that has exited meanwhile needs no signal.
        let _ = kill_process(pidfd.as_fd());
    }
}

/// `u1000-p5`, and where leftovers of an earlier process 5 still have that, `u1000-p5-1`.
fn make(uid: u32, pid: i32) -> io::Result<(String, Group)> {
    let mut number = 0;
    loop {
        let name = match number {
            0 => format!("u{uid}-p{pid}"),
            _ => format!("u{uid}-p{pid}-{number}"),
        };
        let group = Group::named(&name).ok_or(io::ErrorKind::InvalidInput)?;
        match fs::create_dir(group.path()) {
            Ok(()) => return Ok((name, group)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_PER_USER => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn parse(name: &str) -> Option<(u32, Group)> {
    let (uid, _) = name.strip_prefix('u')?.split_once("-p")?;
    Some((uid.parse().ok()?, Group::named(name)?))
}

fn owned(wisher: Wisher, name: &str) -> Option<Group> {
    let (uid, group) = parse(name)?;
    (uid == wisher.uid).then_some(group)
}

fn limit(group: &Group, limits: Limits) -> Result<(), GroupError> {
    let set = |file, value: Option<String>| match value {
        Some(value) => group
            .write(file, &value)
            .map_err(|error| GroupError::Limit(file, error)),
        None => Ok(()),
    };
    set("memory.max", limits.memory.map(|bytes| bytes.to_string()))?;
    // Else the limit would only push the program out to swap. A guest without swap has no such file.
    if limits.memory.is_some() {
        let _ = group.write("memory.swap.max", "0");
    }
    set("pids.max", limits.pids.map(|pids| pids.to_string()))?;
    let quota = |millis: u32| format!("{} {CPU_PERIOD}", u64::from(millis) * CPU_PERIOD / 1000);
    set("cpu.max", limits.cpu_millis.map(quota))
}

/// A file of a process's in /proc (proc(5)); empty where there is none.
fn told_of(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// The words behind a key of /proc/PID/status.
fn field<'a>(status: &'a str, key: &str) -> Option<Vec<&'a str>> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().collect())
}

/// Whether all four of its uids are this one.
fn has_uids(status: &str, uid: u32) -> bool {
    field(status, "Uid:").is_some_and(|uids| uids == [uid.to_string().as_str(); 4])
}

/// Whether it is a child of the worker's, as the worker's user, and in none of our groups.
fn is_child_outside(wisher: Wisher, child: i32) -> bool {
    let status = told_of(child, "status");
    let parent = wisher.pid.to_string();
    let outside = !told_of(child, "cgroup")
        .lines()
        .any(|line| line.starts_with("0::/guestline/"));
    outside
        && field(&status, "PPid:").is_some_and(|ppid| ppid == [parent.as_str()])
        && has_uids(&status, wisher.uid)
}

fn has_exited(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO) != Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_group_belongs_to_the_uid_in_its_name() {
        let alice = Wisher { pid: 1, uid: 1000 };
        assert!(owned(alice, "u1000-p5").is_some());
        for foreign in ["u1001-p5", "u-p5", "u1000p5", "u1000-p5/../u1001-p6", ""] {
            assert!(owned(alice, foreign).is_none(), "{foreign:?}");
        }
    }

    #[test]
    fn only_who_is_listed_when_it_is_held_is_killed_one_by_one() {
        let sleep = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("100").spawn().unwrap()
        };
        let (mut member, mut other) = (sleep(), sleep());
        let pid = other.id().cast_signed();
        let folder = tempfile::tempdir().unwrap();
        let group = Group::at(folder.path());
        // 0: of another pid namespace. To kill(2) it would be this test's own process group.
        group
            .write("cgroup.procs", &format!("0\n{}\n", member.id()))
            .unwrap();
        // It was listed a moment ago, or the pid was another process's.
        let pidfd = open_pidfd(Pid::from_raw(pid)).unwrap();
        kill_listed(&group, &[pid]);
        assert!(Killing::of(group.clone()).go_on().is_none());
        let killed = member.wait().unwrap();
        assert_eq!(killed.signal(), Some(9));
        assert!(!has_exited(&pidfd));
        group.write("cgroup.procs", &format!("{pid}\n")).unwrap();
        kill_listed(&group, &[pid]);
        assert_eq!(other.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_killing_one_by_one_goes_in_steps_and_ends_with_a_thaw() {
        let sleep = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("100").spawn().unwrap()
        };
        let mut members = [sleep(), sleep(), sleep()];
        let folder = tempfile::tempdir().unwrap();
        let group = Group::at(folder.path());
        // Pids beyond the greatest that a kernel gives (PID_MAX_LIMIT, 2^22) between them: two steps and a half.
        let nobodies = (1 << 22) + 1..;
        let procs = members.iter().flat_map(|member| {
            let some = nobodies.clone().take(KILLED_AT_ONCE - 1);
            some.chain([member.id()])
        });
        let procs: Vec<String> = procs
            .skip(KILLED_AT_ONCE / 2)
            .map(|pid| pid.to_string())
            .collect();
        group.write("cgroup.procs", &procs.join("\n")).unwrap();
        let mut killing = Some(Killing::of(group));
        for count in [1, 2, 3] {
            let thawed = fs::read_to_string(folder.path().join("cgroup.freeze"));
            assert!(thawed.is_err(), "before the end");
            killing = killing.unwrap().go_on();
            assert_eq!(killing.is_none(), count == 3);
            let (living, killed) = members.split_at_mut(3 - count);
            assert_eq!(killed[0].wait().unwrap().signal(), Some(9));
            // What got no signal lives on.
            assert!(
                living
                    .iter_mut()
                    .all(|one| one.try_wait().unwrap().is_none())
            );
        }
        let thawed = fs::read_to_string(folder.path().join("cgroup.freeze")).unwrap();
        assert_eq!(thawed, "0");
    }

    #[test]
    fn only_a_child_of_the_workers_user_is_its_own() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let me = Wisher {
            pid: std::process::id().cast_signed(),
            uid: nix::unistd::getuid().as_raw(),
        };
        assert!(is_child_outside(me, pid));
        assert!(!is_child_outside(
            Wisher {
                uid: me.uid + 1,
                ..me
            },
            pid
        ));
        assert!(!is_child_outside(Wisher { pid: 1, ..me }, pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! A program for which one system call does not work, by a seccomp(2) filter that it and its children keep: failures that
//! no user could cause, for the agent's own binary as it is.

use std::{collections::BTreeMap, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, anyhow, bail};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// RNDADDENTROPY and RNDRESEEDCRNG of linux/random.h.
const ADD_ENTROPY: u64 = 0x4008_5203;
const RESEED_POOL: u64 = 0x5207;

/// The calls by which the agent becomes a user and looks at what it became, and those by which it renews the random pool.
fn number(call: &str) -> Option<i64> {
    Some(match call {
        "setgroups" => libc::SYS_setgroups,
        "setresgid" => libc::SYS_setresgid,
        "setresuid" => libc::SYS_setresuid,
        "set_dumpable" => libc::SYS_prctl,
        "getresuid" => libc::SYS_getresuid,
        "getresgid" => libc::SYS_getresgid,
        "getgroups" => libc::SYS_getgroups,
        "capget" => libc::SYS_capget,
        "add_entropy" | "reseed_pool" => libc::SYS_ioctl,
        _ => return None,
    })
}

/// Becomes the program, for which the call is `refused` (EPERM) or `skipped`: it answers 0 and does nothing.
pub fn become_confined(call: &str, answer: &str, program: &[&str]) -> anyhow::Error {
    if let Err(error) = confine(call, answer) {
        return error;
    }
    let [program, arguments @ ..] = program else {
        return anyhow!("no program");
    };
    let error = Command::new(program).args(arguments).exec();
    anyhow!(error).context(format!("cannot execute {program}"))
}

fn confine(call: &str, answer: &str) -> anyhow::Result<()> {
    let errno = match answer {
        "refused" => libc::EPERM as u32,
        "skipped" => 0,
        _ => bail!("{answer:?} is neither refused nor skipped"),
    };
    let number = number(call).with_context(|| format!("no call {call:?}"))?;
    // Which of its arguments makes it the call that is meant.
    let argument = match call {
        "set_dumpable" => Some((0, libc::PR_SET_DUMPABLE as u64)),
        "add_entropy" => Some((1, ADD_ENTROPY)),
        "reseed_pool" => Some((1, RESEED_POOL)),
        _ => None,
    };
    let rules = argument.map(|(index, value)| {
        let is_it = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![is_it])
    });
    let rules = rules.transpose()?.into_iter().collect();
    let filter = SeccompFilter::new(
        BTreeMap::from([(number, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into()?,
    )?;
    let filter: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&filter)?)
}

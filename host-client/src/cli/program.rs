//! Which program, and how it starts: what `exec` and `run` share.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use guestline_client::{Command, Vm};

use super::output::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Program {
    /// Set a variable of the program's environment
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Leave a variable out of the environment that the guest gives
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// Where to start; the user's home otherwise
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
    /// End the program after so many seconds; that gives exit code 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// End it when it uses more memory, with all that it starts, as in 512M. This and the two limits below need cgroup v2 in
    /// the guest
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Let it have at most so many processes and threads at once, with all that it starts
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u32>,
    /// Let it use at most so many cores, with all that it starts, as in 0.5
    #[arg(long, value_name = "CORES", value_parser = cores)]
    cpus: Option<u32>,
    /// Run it in a login session of the guest's systemd: with PAM's limits and XDG_RUNTIME_DIR, and listed by loginctl
    #[arg(long, conflicts_with_all = ["memory", "pids", "cpus"])]
    session: bool,
    /// The mode bits that its new files do not get, in octal; 022 otherwise
    #[arg(long, value_name = "MASK", value_parser = mask)]
    umask: Option<u32>,
    /// When it ends, also kill what it left running
    #[arg(long)]
    kill_leftovers: bool,
    /// Take the words as one line for the user's login shell
    #[arg(long)]
    shell: bool,
    /// Have that shell read its login files first, such as ~/.profile, which may set another PATH
    #[arg(long, requires = "shell")]
    login: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Program {
    /// As it is asked for, and how to call it in an error.
    pub(super) fn command(self, vm: &Vm) -> (Command, String) {
        let name = printable(self.command[0].as_encoded_bytes());
        let mut command = match self.shell {
            true => vm.shell(self.command.join(" ".as_ref())),
            false => vm.command(&self.command[0]),
        };
        command.args(&self.command[1..]);
        for (name, value) in self.env {
            command.env(name, value);
        }
        for name in self.unset {
            command.env_remove(name);
        }
        command
            .login(self.login)
            .kill_leftovers(self.kill_leftovers);
        if let Some(mask) = self.umask {
            command.umask(mask);
        }
        if let Some(directory) = self.cwd {
            command.current_dir(directory);
        }
        if let Some(limit) = self.timeout {
            command.timeout(limit);
        }
        command.login_session(self.session);
        if let Some(bytes) = self.memory {
            command.memory_limit(bytes);
        }
        if let Some(pids) = self.pids {
            command.pids_limit(pids);
        }
        if let Some(millis) = self.cpus {
            command.cpu_limit(millis);
        }
        (command, format!("run {name}"))
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "expected seconds, as in 1.5")?;
    match Duration::try_from_secs_f64(number) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("expected more than 0 seconds".into()),
    }
}

fn mask(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mask @ 0..=0o777) => Ok(mask),
        _ => Err("expected an octal number of at most 777, as in 077".into()),
    }
}

/// A number, and perhaps K, M or G for powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((end, 'K' | 'k')) => (&text[..end], 10),
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        _ => (text, 0),
    };
    let number = digits
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(1 << shift));
    number.ok_or_else(|| "expected bytes, as in 4096 or 512M".into())
}

/// In thousandths.
fn cores(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(cores) if (0.01..=10_000.0).contains(&cores) => Ok((cores * 1000.0).round() as u32),
        _ => Err("expected cores, 0.01 or more".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_do_not_overflow() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("1k"), Ok(1024));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        for wrong in ["", "M", "1T", "-1", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(mask("077"), Ok(0o77));
        assert!(mask("8").is_err() && mask("1000").is_err() && mask("-1").is_err());
        assert_eq!(cores("0.5"), Ok(500));
        assert!(cores("0").is_err() && cores("NaN").is_err());
    }
}

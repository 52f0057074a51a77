//! `guestline metrics`: one block that is drawn anew in a terminal, or a JSON object a line.

use std::{os::unix::ffi::OsStrExt, time::Duration};

use console::{Term, truncate_str};
use guestline_client::{AgentProcess, Metrics, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, Trying},
    output::{print, print_json_line, printable, printable_path, put_bytes, seconds, time_text},
    program::seconds as parse_seconds,
    space::disk_json,
};

/// Characters of a bar.
const BAR: usize = 30;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Look every so many seconds, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
    /// End after so many looks; the first shows the processors' use since the boot
    #[arg(short = 'n', long, value_name = "LOOKS")]
    count: Option<u64>,
    /// Print a JSON object for each look, one a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let what = "look at what the guest uses";
    let looks = vm.system().metrics(Some(arguments.interval)).await;
    let mut looks = looks.trying_to(what, vm)?;
    let mut view = View::default();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(look) = looks.next().await.trying_to(what, vm)? else {
            return Err(Failure::Told("the agent is going away".into()));
        };
        if arguments.json {
            print_json_line(&document(&look))?;
        } else {
            view.show(look)?;
        }
        left -= 1;
    }
    Ok(0)
}

/// What stands in the terminal.
#[derive(Default)]
struct View {
    before: Option<Metrics>,
    lines: usize,
}

impl View {
    fn show(&mut self, look: Metrics) -> Result<(), Failure> {
        let block = block(&look, self.before.as_ref());
        let term = Term::stdout();
        if term.is_term() {
            let width = usize::from(term.size().1);
            term.clear_last_lines(self.lines)?;
            for line in &block {
                term.write_line(&truncate_str(line, width, "…"))?;
            }
        } else {
            print(format!("{}\n\n", block.join("\n")).as_bytes())?;
        }
        self.lines = block.len();
        self.before = Some(look);
        Ok(())
    }
}

fn block(look: &Metrics, before: Option<&Metrics>) -> Vec<String> {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let memory = look.memory;
    let used = memory.total.saturating_sub(memory.available);
    // Without a look before it, that of all the time since the boot, as vmstat(8) has it.
    let since = before.map_or_else(Default::default, |before| before.cpu);
    let cpu = look.cpu.share_since(since);
    let [one, five, fifteen] = look.load;
    let pressure = look.pressure;
    let mut lines = vec![
        format!(
            "time      {} UTC",
            look.now.map_or_else(String::new, time_text)
        ),
        format!(
            "cpu       {} {:>3.0} %   load {one:.2} {five:.2} {fifteen:.2}",
            bar(cpu),
            cpu * 100.0
        ),
        format!(
            "memory    {} {} of {} MiB used",
            bar(share(used, memory.total)),
            mib(used),
            mib(memory.total)
        ),
        format!(
            "pressure  cpu {:.1} %   memory {:.1} %   io {:.1} %",
            pressure.cpu, pressure.memory, pressure.io
        ),
    ];
    if memory.swap_total > 0 {
        let used = memory.swap_total.saturating_sub(memory.swap_free);
        lines.push(format!(
            "swap      {} {} of {} MiB used",
            bar(share(used, memory.swap_total)),
            mib(used),
            mib(memory.swap_total)
        ));
    }
    for disk in &look.disks {
        let used = disk.total.saturating_sub(disk.available);
        lines.push(format!(
            "disk      {} {} of {} MiB used  {}",
            bar(share(used, disk.total)),
            mib(used),
            mib(disk.total),
            printable_path(&disk.mount_point)
        ));
    }
    for process in &look.agent {
        lines.push(format!(
            "{:<9} {:>7} {:>5.1} MiB {:>6.1} s cpu {:>3} threads",
            name(process),
            process.pid,
            process.resident as f64 / f64::from(1 << 20),
            process.cpu_time.as_secs_f64(),
            process.threads,
        ));
    }
    lines
}

fn name(process: &AgentProcess) -> String {
    match &process.user {
        Some(user) => printable(user.as_bytes()),
        None => "listener".into(),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), " ".repeat(BAR - full))
}

fn document(look: &Metrics) -> Value {
    let process = |process: &AgentProcess| {
        let mut object = Map::new();
        if let Some(user) = &process.user {
            put_bytes(&mut object, "user", user);
        }
        object.insert("uid".into(), json!(process.uid));
        object.insert("pid".into(), json!(process.pid));
        object.insert("resident".into(), json!(process.resident));
        object.insert("threads".into(), json!(process.threads));
        object.insert("cpu_time".into(), json!(process.cpu_time.as_secs_f64()));
        Value::Object(object)
    };
    json!({
        "now": look.now.map(seconds),
        "cpu_busy": look.cpu.busy,
        "cpu_total": look.cpu.total,
        "load": look.load,
        "memory": {
            "total": look.memory.total,
            "free": look.memory.free,
            "available": look.memory.available,
            "swap_total": look.memory.swap_total,
            "swap_free": look.memory.swap_free,
        },
        "disks": look.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "pressure": {
            "cpu": look.pressure.cpu,
            "memory": look.pressure.memory,
            "io": look.pressure.io,
        },
        "agent": look.agent.iter().map(process).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_length_whatever_it_shows() {
        for (share, full) in [(-1.0, 0), (0.0, 0), (0.5, 15), (1.0, 30), (7.0, 30)] {
            let bar = bar(share);
            assert_eq!(bar.len(), BAR + 2);
            assert_eq!(bar.matches('#').count(), full, "{share}");
        }
    }
}

//! What the guest and its agent use, as it goes on.

use std::{
    ffi::OsString,
    time::{Duration, SystemTime},
};

use guestline_proto::v1;
use tonic::Streaming;

use super::{Disk, Memory, System, text};
use crate::{Error, Vm};

/// One look at the guest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// The guest's clock.
    pub now: Option<SystemTime>,
    /// The processors' time since boot.
    pub cpu: CpuTime,
    /// Load over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Its memory.
    pub memory: Memory,
    /// Its mounted disks.
    pub disks: Vec<Disk>,
    /// Who waited for what.
    pub pressure: Pressure,
    /// The agent's own processes: its listener and its workers.
    pub agent: Vec<AgentProcess>,
}

/// Time of all processors together since boot, in units of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTime {
    /// Neither idle nor waiting for a disk.
    pub busy: u64,
    /// All.
    pub total: u64,
}

impl CpuTime {
    /// The busy share since an earlier look, 0 to 1; 0 where no time passed.
    pub fn share_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        let busy = self.busy.saturating_sub(earlier.busy);
        if total == 0 {
            0.0
        } else {
            busy as f64 / total as f64
        }
    }
}

/// The share of the last 10 s in which some task waited, 0 to 100; 0 in a guest that does not measure it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// For a processor.
    pub cpu: f64,
    /// For memory.
    pub memory: f64,
    /// For a disk.
    pub io: f64,
}

/// A process of the agent's own, without the programs that it runs for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentProcess {
    /// Whom the worker serves; `None` for the listener.
    pub user: Option<OsString>,
    /// Who it is.
    pub uid: u32,
    /// Its number in the guest.
    pub pid: i32,
    /// Bytes in memory.
    pub resident: u64,
    /// How many.
    pub threads: u32,
    /// Since its start.
    pub cpu_time: Duration,
}

/// Looks at the guest, one after another. Dropping it ends the call.
#[derive(Debug)]
pub struct MetricsStream {
    vm: Vm,
    samples: Streaming<v1::MetricsResponse>,
}

impl MetricsStream {
    /// The next look; `None` if the agent ended the call, as it does when it goes away. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Metrics>, Error> {
        let sample = self.samples.message().await;
        let sample = sample.map_err(|status| self.vm.error(status))?;
        Ok(sample.map(Metrics::from))
    }
}

impl System {
    /// A look now, and then one every `interval` (1 s where it is `None`; 100 ms to 1 hour).
    pub async fn metrics(&self, interval: Option<Duration>) -> Result<MetricsStream, Error> {
        let interval = interval.and_then(|interval| interval.try_into().ok());
        let answer = self.client().metrics(v1::MetricsRequest { interval }).await;
        Ok(MetricsStream {
            vm: self.vm.clone(),
            samples: answer.map_err(|status| self.vm.error(status))?.into_inner(),
        })
    }
}

impl From<v1::MetricsResponse> for Metrics {
    fn from(wire: v1::MetricsResponse) -> Self {
        Self {
            now: wire.now.and_then(|time| time.try_into().ok()),
            cpu: CpuTime {
                busy: wire.cpu_busy,
                total: wire.cpu_total,
            },
            load: [wire.load_1, wire.load_5, wire.load_15],
            memory: wire.memory.unwrap_or_default().into(),
            disks: wire.disks.into_iter().map(Disk::from).collect(),
            pressure: Pressure {
                cpu: wire.cpu_pressure,
                memory: wire.memory_pressure,
                io: wire.io_pressure,
            },
            agent: wire.agent.into_iter().map(AgentProcess::from).collect(),
        }
    }
}

impl From<v1::AgentProcess> for AgentProcess {
    fn from(wire: v1::AgentProcess) -> Self {
        Self {
            user: (!wire.user.is_empty()).then(|| text(wire.user)),
            uid: wire.uid,
            pid: wire.pid,
            resident: wire.resident,
            threads: wire.threads,
            cpu_time: wire
                .cpu_time
                .and_then(|time| time.try_into().ok())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_is_that_of_the_time_between() {
        let at = |busy, total| CpuTime { busy, total };
        assert_eq!(at(30, 200).share_since(at(10, 100)), 0.2);
        assert_eq!(at(10, 100).share_since(at(10, 100)), 0.0);
        // A clone's counters may be behind those of before.
        assert_eq!(at(1, 2).share_since(at(10, 100)), 0.0);
    }
}

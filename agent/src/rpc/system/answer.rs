//! From the domain's values to the messages of guestline.v1.System.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use guestline_proto::v1::{
    AgentProcess, Disk, Group, Identity, InfoResponse, LogLine, Memory, MetricsResponse, Service,
    ServiceLogsResponse, User,
};

use crate::system::{
    accounts::{self, Account},
    clock::Step,
    info, metrics, services,
};

pub(super) fn info(info: info::Info, account: &Account, generation: u64) -> InfoResponse {
    InfoResponse {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        protocol: 1,
        hostname: info.hostname,
        kernel: info.kernel,
        architecture: info.architecture,
        operating_system: info.operating_system,
        boot_id: info.boot_id,
        generation,
        uptime: duration(info.uptime),
        now: Some(SystemTime::now().into()),
        load_1: info.load[0],
        load_5: info.load[1],
        load_15: info.load[2],
        cpus: info.cpus,
        memory: Some(memory(info.memory)),
        disks: info.disks.into_iter().map(disk).collect(),
        identity: Some(identity(account)),
        capabilities: info.capabilities,
    }
}

pub(super) fn metrics(sample: metrics::Sample) -> MetricsResponse {
    let [cpu_pressure, memory_pressure, io_pressure] = sample.pressure;
    let [load_1, load_5, load_15] = sample.load;
    MetricsResponse {
        now: Some(SystemTime::now().into()),
        cpu_busy: sample.cpu_busy,
        cpu_total: sample.cpu_total,
        memory: Some(memory(sample.memory)),
        disks: sample.disks.into_iter().map(disk).collect(),
        cpu_pressure,
        memory_pressure,
        io_pressure,
        load_1,
        load_5,
        load_15,
        agent: sample.agent.into_iter().map(agent_process).collect(),
    }
}

fn agent_process(process: metrics::AgentProcess) -> AgentProcess {
    AgentProcess {
        user: process.user.into(),
        uid: process.uid,
        pid: process.pid,
        resident: process.resident,
        threads: process.threads,
        cpu_time: duration(process.cpu_time),
    }
}

fn memory(memory: info::Memory) -> Memory {
    Memory {
        total: memory.total,
        free: memory.free,
        available: memory.available,
        swap_total: memory.swap_total,
        swap_free: memory.swap_free,
    }
}

fn disk(disk: info::Disk) -> Disk {
    Disk {
        mount_point: bytes(disk.mount_point.as_os_str()),
        device: bytes(disk.device.as_os_str()),
        file_system: disk.file_system,
        total: disk.total,
        available: disk.available,
    }
}

fn identity(account: &Account) -> Identity {
    Identity {
        user: account.name.clone().into(),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups.clone(),
        home: bytes(account.home.as_os_str()),
        shell: bytes(account.shell.as_os_str()),
    }
}

/// Negative where the clock went back.
pub(super) fn step(step: Step) -> Option<prost_types::Duration> {
    match step {
        Step::Forward(by) => duration(by),
        Step::Back(by) => duration(by).map(|by| prost_types::Duration {
            seconds: -by.seconds,
            nanos: -by.nanos,
        }),
    }
}

pub(super) fn paths(paths: Vec<Vec<u8>>) -> Vec<Bytes> {
    paths.into_iter().map(Bytes::from).collect()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn bytes(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn user(user: &accounts::User) -> User {
    User {
        name: bytes(&user.name),
        uid: user.uid,
        gid: user.gid,
        comment: bytes(&user.comment),
        home: bytes(user.home.as_os_str()),
        shell: bytes(user.shell.as_os_str()),
    }
}

pub(super) fn group(group: &accounts::Group) -> Group {
    Group {
        name: bytes(&group.name),
        gid: group.gid,
        members: group.members.iter().map(|member| bytes(member)).collect(),
    }
}

pub(super) fn service(service: services::Service) -> Service {
    Service {
        enabled: service.is_enabled(),
        name: service.name,
        description: service.description,
        load_state: service.load_state,
        active_state: service.active_state,
        sub_state: service.sub_state,
        main_pid: service.main_pid,
        unit_file_state: service.unit_file_state,
        result: service.result,
        exit_status: service.exit_status,
    }
}

pub(super) fn log_lines(lines: Vec<services::Line>) -> ServiceLogsResponse {
    let line = |line: services::Line| LogLine {
        time: Some(line.time.into()),
        text: line.text.into(),
        priority: line.priority,
    };
    ServiceLogsResponse {
        lines: lines.into_iter().map(line).collect(),
    }
}

//! From the requests of guestline.v1.System to the domain's values, or to the refusal of a field.

use std::time::{Duration, SystemTime};

use guestline_proto::v1::{
    CreateServiceRequest, FreezeRequest, MetricsRequest, ServiceAction, ServiceLogsRequest,
    SetTimeRequest, ShutdownMode,
};

use prost_types::Timestamp;

use crate::{
    rpc::status::Failure,
    system::{
        services::{Action, LogRequest, NewService, UnitName},
        shutdown,
    },
};

/// How long file systems stay frozen where the client does not say, and the longest that it may say: all that writes in the
/// guest stands still meanwhile.
const DEFAULT_FREEZE: Duration = Duration::from_secs(30);
const MAX_FREEZE: Duration = Duration::from_secs(300);

/// How often metrics are told, where the client does not say, and between what bounds it may say: a look at a guest with
/// many processes takes some milliseconds.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Lines of a log, where the client does not say.
const DEFAULT_LINES: u32 = 100;

/// What is to be done with a service.
pub(super) enum Control {
    Status,
    Change(Action),
    Remove,
}

pub(super) fn time(request: SetTimeRequest) -> Result<SystemTime, Failure> {
    clock_time("set time", request.time)
}

pub(super) fn resumed_time(time: Option<Timestamp>) -> Result<SystemTime, Failure> {
    clock_time("resumed", time)
}

fn clock_time(operation: &'static str, time: Option<Timestamp>) -> Result<SystemTime, Failure> {
    let time = time.and_then(|time| time.try_into().ok());
    time.ok_or_else(|| Failure::invalid(operation, "`time` is missing or out of range"))
}

pub(super) fn freeze_limit(request: FreezeRequest) -> Result<Duration, Failure> {
    let Some(limit) = request.timeout else {
        return Ok(DEFAULT_FREEZE);
    };
    match Duration::try_from(limit) {
        Ok(limit) if limit >= Duration::from_millis(1) && limit <= MAX_FREEZE => Ok(limit),
        Ok(_) | Err(_) => {
            let text = format!(
                "`timeout` must be more than 0 and at most {} s",
                MAX_FREEZE.as_secs()
            );
            Err(Failure::invalid("freeze", text))
        }
    }
}

pub(super) fn new_service(request: CreateServiceRequest) -> Result<NewService, Failure> {
    Ok(NewService {
        name: UnitName::parse(&request.name)?,
        unit: request.unit,
        enable: request.enable,
        start: request.start,
    })
}

pub(super) fn control(action: ServiceAction) -> Result<Control, Failure> {
    Ok(match action {
        ServiceAction::Unspecified => {
            let text = "`action` is missing, or not known to this agent";
            return Err(Failure::invalid("control service", text));
        }
        ServiceAction::Status => Control::Status,
        ServiceAction::Start => Control::Change(Action::Start),
        ServiceAction::Stop => Control::Change(Action::Stop),
        ServiceAction::Restart => Control::Change(Action::Restart),
        ServiceAction::Enable => Control::Change(Action::Enable),
        ServiceAction::Disable => Control::Change(Action::Disable),
        ServiceAction::Remove => Control::Remove,
    })
}

pub(super) fn logs(request: ServiceLogsRequest) -> Result<LogRequest, Failure> {
    let since = request.since.map(SystemTime::try_from).transpose();
    Ok(LogRequest {
        name: UnitName::parse(&request.name)?,
        lines: request.lines.unwrap_or(DEFAULT_LINES),
        since: since.map_err(|_| Failure::invalid("service logs", "`since` is out of range"))?,
        follow: request.follow,
    })
}

pub(super) fn interval(request: MetricsRequest) -> Result<Duration, Failure> {
    let Some(interval) = request.interval else {
        return Ok(DEFAULT_INTERVAL);
    };
    match Duration::try_from(interval) {
        Ok(interval) if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) => Ok(interval),
        Ok(_) | Err(_) => {
            let text = "`interval` must be between 100 ms and 1 hour";
            Err(Failure::invalid("metrics", text))
        }
    }
}

pub(super) fn shutdown(mode: ShutdownMode) -> Result<shutdown::Mode, Failure> {
    match mode {
        ShutdownMode::PowerOff => Ok(shutdown::Mode::PowerOff),
        ShutdownMode::Reboot => Ok(shutdown::Mode::Reboot),
        ShutdownMode::Unspecified => {
            let text = "`mode` is missing, or not known to this agent";
            Err(Failure::invalid("shut down", text))
        }
    }
}

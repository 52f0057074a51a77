//! systemd's services in the guest.

use std::time::SystemTime;

use guestline_proto::v1;
use tonic::Streaming;

use super::System;
use crate::{Error, Vm};

/// A unit of type service, in systemd's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// With `.service`.
    pub name: String,
    /// Of its unit file.
    pub description: String,
    /// "loaded", "not-found", "masked", …
    pub load_state: String,
    /// "active", "inactive", "failed", …
    pub active_state: String,
    /// "running", "dead", "exited", …
    pub sub_state: String,
    /// Whether it starts at boot.
    pub enabled: bool,
    /// Its main process, if it has one.
    pub main_pid: Option<i32>,
    /// "enabled", "disabled", "static", …
    pub unit_file_state: String,
    /// How its last run ended: "success", "exit-code", …
    pub result: String,
    /// Of its main process's last end.
    pub exit_status: i32,
}

/// A service to create.
#[derive(Clone, Debug, Default)]
pub struct CreateService {
    /// With or without `.service`.
    pub name: String,
    /// The whole unit file, at most 64 KiB.
    pub unit: String,
    /// Have it started at boot.
    pub enable: bool,
    /// Start it now.
    pub start: bool,
}

/// What to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceAction {
    /// Nothing but looking.
    Status,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop it if it runs, and start it.
    Restart,
    /// Have it started at boot.
    Enable,
    /// Have it not started at boot.
    Disable,
    /// Stop it, and remove its unit file from /etc/systemd/system.
    Remove,
}

/// Which lines of a service's log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// The last so many; 100 otherwise.
    pub lines: Option<u32>,
    /// None that are older.
    pub since: Option<SystemTime>,
    /// Also those to come, without end.
    pub follow: bool,
}

/// A line of a service's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// By the guest's clock.
    pub time: Option<SystemTime>,
    /// Byte for byte, cut after 48 KiB.
    pub text: Vec<u8>,
    /// Of syslog(3): 0 is the worst, 7 for debugging.
    pub priority: Option<u32>,
}

/// The lines of a log as they come. Dropping it ends the call.
#[derive(Debug)]
pub struct LogStream {
    vm: Vm,
    pages: Streaming<v1::ServiceLogsResponse>,
    page: std::vec::IntoIter<v1::LogLine>,
}

impl LogStream {
    /// The next line, `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<LogLine>, Error> {
        loop {
            if let Some(line) = self.page.next() {
                return Ok(Some(line.into()));
            }
            let page = self.pages.message().await;
            match page.map_err(|status| self.vm.error(status))? {
                Some(page) => self.page = page.lines.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

impl System {
    /// The services whose names match a glob, all for an empty one, sorted by name.
    pub async fn services(&self, pattern: impl Into<String>) -> Result<Vec<Service>, Error> {
        let pattern = pattern.into();
        let answer = self
            .client()
            .list_services(v1::ListServicesRequest { pattern })
            .await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        let services = answer.into_inner().services;
        Ok(services.into_iter().map(Service::from).collect())
    }

    /// Creates a service. Not repeated by itself: after [`Error::Lost`], look whether it is there.
    pub async fn create_service(&self, service: CreateService) -> Result<Service, Error> {
        let CreateService {
            name,
            unit,
            enable,
            start,
        } = service;
        let request = v1::CreateServiceRequest {
            name,
            unit,
            enable,
            start,
        };
        let answer = self.client().create_service(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        told(answer.into_inner().service)
    }

    /// Does one thing to a service, and says how it is then.
    pub async fn control_service(
        &self,
        name: impl Into<String>,
        action: ServiceAction,
    ) -> Result<Service, Error> {
        let request = v1::ControlServiceRequest {
            name: name.into(),
            action: v1::ServiceAction::from(action).into(),
        };
        let answer = self.client().control_service(request).await;
        let answer = answer.map_err(|status| self.vm.error(status))?;
        told(answer.into_inner().service)
    }

    /// What a service logged, oldest first.
    pub async fn service_logs(
        &self,
        name: impl Into<String>,
        options: LogOptions,
    ) -> Result<LogStream, Error> {
        let request = v1::ServiceLogsRequest {
            name: name.into(),
            lines: options.lines,
            follow: options.follow,
            since: options.since.map(Into::into),
        };
        let answer = self.client().service_logs(request).await;
        Ok(LogStream {
            vm: self.vm.clone(),
            pages: answer.map_err(|status| self.vm.error(status))?.into_inner(),
            page: Vec::new().into_iter(),
        })
    }
}

fn told(service: Option<v1::Service>) -> Result<Service, Error> {
    let missing = || Error::Protocol("a service's answer without the service".into());
    service.map(Service::from).ok_or_else(missing)
}

impl From<v1::Service> for Service {
    fn from(wire: v1::Service) -> Self {
        Self {
            name: wire.name,
            description: wire.description,
            load_state: wire.load_state,
            active_state: wire.active_state,
            sub_state: wire.sub_state,
            enabled: wire.enabled,
            main_pid: (wire.main_pid != 0).then_some(wire.main_pid),
            unit_file_state: wire.unit_file_state,
            result: wire.result,
            exit_status: wire.exit_status,
        }
    }
}

impl From<v1::LogLine> for LogLine {
    fn from(wire: v1::LogLine) -> Self {
        Self {
            time: wire.time.and_then(|time| time.try_into().ok()),
            text: wire.text.into(),
            priority: wire.priority,
        }
    }
}

impl From<ServiceAction> for v1::ServiceAction {
    fn from(action: ServiceAction) -> Self {
        match action {
            ServiceAction::Status => Self::Status,
            ServiceAction::Start => Self::Start,
            ServiceAction::Stop => Self::Stop,
            ServiceAction::Restart => Self::Restart,
            ServiceAction::Enable => Self::Enable,
            ServiceAction::Disable => Self::Disable,
            ServiceAction::Remove => Self::Remove,
        }
    }
}

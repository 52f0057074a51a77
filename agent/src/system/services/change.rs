//! Creating, controlling and removing services.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::errno::Errno;

use super::{Service, ServiceError, UnitName, check_booted, look, order, status, systemctl};
use crate::files::{self, FileError, Kind, Piece, Write, WriteMode};

/// Where an administrator's unit files are (systemd.unit(5)).
pub(super) const UNITS: &str = "/etc/systemd/system";

/// The largest unit file.
pub(super) const MAX_UNIT: usize = 64 * 1024;

/// Has systemd read its unit files again.
const RELOAD: &str = "daemon-reload";

/// A service to make.
#[derive(Debug)]
pub(crate) struct NewService {
    pub(crate) name: UnitName,
    /// The whole unit file.
    pub(crate) unit: String,
    pub(crate) enable: bool,
    pub(crate) start: bool,
}

/// What to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// Writes the unit file, whole or not at all, and then enables and starts it as asked. A file that systemd finds wrong is
/// removed again; a service that does not start stays.
pub(crate) async fn create(new: NewService) -> Result<Service, ServiceError> {
    check_booted()?;
    if new.unit.len() > MAX_UNIT || new.unit.contains('\0') {
        return Err(ServiceError::InvalidUnit);
    }
    let name = new.name;
    // Also what a package brought, which our file would override.
    if look(&name).await?.is_known() {
        return Err(ServiceError::Exists(name));
    }
    write_unit(&name, new.unit).await?;
    order(RELOAD).await?;
    let service = look(&name).await?;
    if service.load_state != "loaded" {
        remove_unit(&name).await?;
        order(RELOAD).await?;
        return Err(ServiceError::BadUnit(service.load_state));
    }
    if new.enable {
        run(Action::Enable.verb(), &name).await?;
    }
    if new.start {
        run(Action::Start.verb(), &name).await?;
    }
    status(&name).await
}

/// Waits until systemd has done it, and says how the service is then.
pub(crate) async fn control(name: &UnitName, action: Action) -> Result<Service, ServiceError> {
    status(name).await?;
    run(action.verb(), name).await?;
    look(name).await
}

/// Stops and disables a service and removes its unit file. Says how it was before that.
pub(crate) async fn remove(name: &UnitName) -> Result<Service, ServiceError> {
    let service = status(name).await?;
    let path = unit_path(name);
    let metadata = blocking(move || files::stat(&path, false)).await;
    if !metadata.is_ok_and(|metadata| metadata.kind == Kind::Regular) {
        return Err(ServiceError::NotOurs(name.clone()));
    }
    run("stop", name).await?;
    run("disable", name).await?;
    remove_unit(name).await?;
    order(RELOAD).await?;
    // It forgets a failure; there mostly is none, which it calls an error.
    let _ = systemctl(&["reset-failed", "--", name.as_str()]).await;
    Ok(service)
}

async fn run(verb: &'static str, name: &UnitName) -> Result<(), ServiceError> {
    let output = systemctl(&["--quiet", verb, "--", name.as_str()]).await?;
    match output.code {
        Some(0) => Ok(()),
        _ => Err(ServiceError::refused(verb, &output)),
    }
}

fn unit_path(name: &UnitName) -> PathBuf {
    Path::new(UNITS).join(name.as_str())
}

async fn write_unit(name: &UnitName, unit: String) -> Result<(), ServiceError> {
    let length = unit.len() as u64;
    let pieces = [Piece::Data(Bytes::from(unit)), Piece::Finish(length)];
    let request = Write {
        path: unit_path(name),
        mode: WriteMode::CreateNew,
        permissions: Some(0o644),
        parents: false,
        sync: false,
    };
    let written = blocking(move || files::write(&request, pieces.into_iter())).await;
    match written {
        Err(FileError::Refused {
            errno: Errno::EEXIST,
            ..
        }) => Err(ServiceError::Exists(name.clone())),
        written => Ok(written.map(drop)?),
    }
}

async fn remove_unit(name: &UnitName) -> Result<(), ServiceError> {
    let path = unit_path(name);
    Ok(blocking(move || files::remove(&path, false, true)).await?)
}

/// A call on files, off the runtime's thread.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let ended = tokio::task::spawn_blocking(call).await;
    ended.unwrap_or_else(|_| {
        Err(FileError::Refused {
            operation: files::Operation::Open,
            path: UNITS.into(),
            errno: Errno::EIO,
        })
    })
}

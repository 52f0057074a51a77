//! What the SDK sends to create a VM, made into a plan. Unknown fields are ignored, as the SDK forwards whatever its caller
//! passes; known ones that ask for what is not built are refused, never passed over.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use guestline_client::CreateService;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::accounts::{GroupSpec, UserSpec, check_group, check_user};
use crate::http::{
    error::{ApiError, Code},
    services::ServiceSpec,
    vms::{self, check_workdir},
};
use crate::store::KeptUntil;

/// The guest's kernel and Debian want this much; more than that is the host's to lack.
const MEMORY_GIB: std::ops::RangeInclusive<u32> = 1..=64;

/// The image's at the least. The file is sparse; more than the host has is the host's to lack.
const DISK_GIB: std::ops::RangeInclusive<u32> = 2..=1024;

/// As many as a host has at the most.
const CPUS: std::ops::RangeInclusive<u32> = 1..=64;

/// A VM to create. Everything may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateVm {
    /// The VM sleeps after so long without an operation; null is never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    idle_timeout_seconds: Option<Option<u64>>,
    #[serde(flatten)]
    layer: Layer,
    /// The same once more, below what the outer fields say.
    template: Option<Layer>,
    #[schema(value_type = Vec<Object>)]
    domains: Option<Vec<Value>>,
    /// None is given out; an empty list is as good as none.
    #[schema(value_type = Vec<Object>)]
    ports: Option<Vec<Value>>,
    /// Absent: until it is deleted.
    persistence: Option<Persistence>,
    /// The services must have started within this time; else the VM is not created. Creating always waits for them.
    ready_signal_timeout_seconds: Option<u64>,
}

/// How long a VM is kept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Persistence {
    /// sticky and persistent are the same here: until it is deleted. ephemeral: until `deleteEvent`.
    r#type: String,
    /// OnSuspend, which is the default: it is deleted instead of being suspended or stopped, also by its idle timeout or by its
    /// own hand; OnStop: it may be suspended.
    delete_event: Option<String>,
}

impl Persistence {
    fn kept_until(&self) -> Result<Option<KeptUntil>, ApiError> {
        let wrong = |what: &str, it: &str| {
            let text = format!("persistence: {it:?} is no {what}");
            ApiError::new(Code::CreateBadRequest, text)
        };
        match (self.r#type.as_str(), self.delete_event.as_deref()) {
            ("sticky" | "persistent", _) => Ok(None),
            ("ephemeral", None | Some("OnSuspend")) => Ok(Some(KeptUntil::Suspended)),
            ("ephemeral", Some("OnStop")) => Ok(Some(KeptUntil::Stopped)),
            ("ephemeral", Some(other)) => Err(wrong("deleteEvent", other)),
            (other, _) => Err(wrong("type of it", other)),
        }
    }
}

/// What a template has too.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Layer {
    /// Where relative paths and commands begin; the user's home otherwise.
    workdir: Option<String>,
    users: Option<Vec<UserSpec>>,
    groups: Option<Vec<GroupSpec>>,
    /// By absolute path.
    additional_files: Option<BTreeMap<String, FileSpec>>,
    mem_size_gb: Option<u32>,
    vcpu_count: Option<u32>,
    /// Of the disk; 2 otherwise. An image without a disk has none.
    rootfs_size_gb: Option<u32>,
    systemd: Option<Services>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    git: Value,
    #[schema(value_type = Vec<Object>)]
    git_repos: Option<Vec<Value>>,
    apt_deps: Option<Vec<String>>,
    snapshot_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    base_image: Value,
}

/// systemd's services.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewServices)]
struct Services {
    /// Created and started one after another, when the files are there.
    services: Option<Vec<ServiceSpec>>,
    #[schema(value_type = Vec<Object>)]
    patched_services: Option<Vec<Value>>,
}

/// A file to write as root.
#[derive(Clone, Debug, Deserialize, ToSchema)]
struct FileSpec {
    content: String,
    /// utf-8, which is the default, or base64.
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    executable: Option<bool>,
}

/// A checked request.
#[derive(Debug)]
pub(super) struct Plan {
    /// Absent: until it is deleted.
    pub(super) kept_until: Option<KeptUntil>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) workdir: Option<String>,
    pub(super) memory_mib: Option<u32>,
    pub(super) groups: Vec<GroupSpec>,
    users: Vec<UserSpec>,
    pub(super) files: Vec<PlannedFile>,
    pub(super) services: Vec<PlannedService>,
    /// Debian packages that the image is to have.
    pub(super) packages: Vec<String>,
    pub(super) cpus: Option<u32>,
    pub(super) disk_gib: Option<u32>,
    pub(super) ready_limit: Option<Duration>,
}

/// A file with its bytes.
#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) path: String,
    pub(super) content: Vec<u8>,
    pub(super) executable: bool,
}

/// A checked service.
#[derive(Debug)]
pub(super) struct PlannedService {
    pub(super) unit: CreateService,
    /// It only has to run once: when all have started, it is removed.
    pub(super) once: bool,
}

impl CreateVm {
    pub(super) fn plan(self, idle_timeout: Duration) -> Result<Plan, ApiError> {
        let layers: Vec<Layer> = self.template.into_iter().chain([self.layer]).collect();
        layers.iter().try_for_each(Layer::refuse_unbuilt)?;
        refuse(
            self.domains.is_some_and(|domains| !domains.is_empty()),
            "domains",
        )?;
        refuse(self.ports.is_some_and(|ports| !ports.is_empty()), "ports")?;
        let kept_until = self.persistence.as_ref().map(Persistence::kept_until);
        let mut plan = Plan {
            kept_until: kept_until.transpose()?.flatten(),
            idle_timeout: match self.idle_timeout_seconds {
                Some(seconds) => seconds.map(vms::idle_timeout).transpose()?,
                None => Some(idle_timeout),
            },
            ready_limit: self.ready_signal_timeout_seconds.map(Duration::from_secs),
            workdir: None,
            memory_mib: None,
            groups: Vec::new(),
            users: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            packages: Vec::new(),
            cpus: None,
            disk_gib: None,
        };
        let services = layers.iter().flat_map(Layer::services);
        let once = services.filter(|service| service.is_for_once());
        let once: Vec<String> = once.map(|service| service.name().to_owned()).collect();
        for layer in layers {
            plan.add(layer, &once)?;
        }
        plan.check()?;
        Ok(plan)
    }
}

impl Layer {
    fn services(&self) -> impl Iterator<Item = &ServiceSpec> {
        let services = self.systemd.as_ref().and_then(|it| it.services.as_ref());
        services.into_iter().flatten()
    }

    fn refuse_unbuilt(&self) -> Result<(), ApiError> {
        let patched = self
            .systemd
            .as_ref()
            .and_then(|it| it.patched_services.as_ref());
        refuse(
            patched.is_some_and(|it| !it.is_empty()),
            "systemd.patchedServices",
        )?;
        refuse(
            self.git.get("repos").is_some_and(|repos| !is_empty(repos)),
            "git",
        )?;
        refuse(
            self.git_repos
                .as_ref()
                .is_some_and(|repos| !repos.is_empty()),
            "gitRepos",
        )?;
        refuse(self.snapshot_id.is_some(), "snapshotId")?;
        refuse(!self.base_image.is_null(), "baseImage")
    }
}

impl Plan {
    /// On top of the layers before it. `once` are the services that only have to run once, of all layers.
    fn add(&mut self, layer: Layer, once: &[String]) -> Result<(), ApiError> {
        let bad = |text: String| ApiError::new(Code::CreateBadRequest, text);
        for service in layer.services() {
            self.services.push(PlannedService {
                unit: service.to_service_among(once)?,
                once: service.is_for_once(),
            });
        }
        check_workdir(layer.workdir.as_deref()).map_err(bad)?;
        self.workdir = layer.workdir.or(self.workdir.take());
        if let Some(gib) = layer.mem_size_gb {
            if !MEMORY_GIB.contains(&gib) {
                return Err(bad(format!(
                    "memSizeGb: from {} to {}",
                    MEMORY_GIB.start(),
                    MEMORY_GIB.end()
                )));
            }
            self.memory_mib = Some(gib * 1024);
        }
        if let Some(cpus) = layer.vcpu_count {
            if !CPUS.contains(&cpus) {
                let text = format!("vcpuCount: from {} to {}", CPUS.start(), CPUS.end());
                return Err(bad(text));
            }
            self.cpus = Some(cpus);
        }
        if let Some(gib) = layer.rootfs_size_gb {
            if !DISK_GIB.contains(&gib) {
                let text = format!(
                    "rootfsSizeGb: from {} to {}",
                    DISK_GIB.start(),
                    DISK_GIB.end()
                );
                return Err(bad(text));
            }
            self.disk_gib = Some(gib);
        }
        self.packages.extend(layer.apt_deps.unwrap_or_default());
        self.groups.extend(layer.groups.unwrap_or_default());
        self.users.extend(layer.users.unwrap_or_default());
        for (path, file) in layer.additional_files.unwrap_or_default() {
            self.files.push(plan_file(path, file)?);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut names = HashSet::new();
        for group in &self.groups {
            check_group(&group.name)?;
            if !names.insert(&group.name) {
                return Err(ApiError::new(
                    Code::DuplicateGroupName,
                    format!("the group {} is named twice", group.name),
                ));
            }
        }
        let mut names = HashSet::new();
        for user in &self.users {
            check_user(user)?;
            if !names.insert(&user.name) {
                return Err(ApiError::new(
                    Code::DuplicateUserName,
                    format!("the user {} is named twice", user.name),
                ));
            }
        }
        Ok(())
    }

    /// Those that have nothing but a name: the machine's image makes them at each boot, with uids from 1000 on.
    pub(super) fn plain_users(&self) -> Vec<String> {
        self.users
            .iter()
            .filter(|user| user.is_plain())
            .map(|user| user.name.clone())
            .collect()
    }

    /// Those that the guest's own tools make.
    pub(super) fn other_users(&self) -> impl Iterator<Item = &UserSpec> {
        self.users.iter().filter(|user| !user.is_plain())
    }

    pub(super) fn needs_no_guest(&self) -> bool {
        self.groups.is_empty()
            && self.files.is_empty()
            && self.services.is_empty()
            && self.other_users().next().is_none()
    }
}

fn plan_file(path: String, file: FileSpec) -> Result<PlannedFile, ApiError> {
    let bad = |text: String| ApiError::new(Code::CreateBadRequest, text);
    if !path.starts_with('/') || path.contains('\0') {
        return Err(bad(format!(
            "additionalFiles: {path:?} is no absolute path"
        )));
    }
    let content = match file.encoding.as_deref() {
        None | Some("utf-8" | "utf8") => file.content.into_bytes(),
        Some("base64") => {
            let decoded = STANDARD.decode(file.content);
            decoded.map_err(|error| bad(format!("additionalFiles: {path}: {error}")))?
        }
        Some(other) => {
            return Err(bad(format!(
                "additionalFiles: {path}: {other:?} is neither utf-8 nor base64"
            )));
        }
    };
    Ok(PlannedFile {
        path,
        content,
        executable: file.executable.unwrap_or_default(),
    })
}

fn refuse(wanted: bool, field: &str) -> Result<(), ApiError> {
    if !wanted {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Unimplemented,
        format!("{field}: this gateway does not have this yet"),
    ))
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

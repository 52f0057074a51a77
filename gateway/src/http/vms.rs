//! Listing VMs, their state, and registering those of an orchestrator.

use std::{path::PathBuf, time::Duration};

use axum::{Json, extract::State, http::Method};
use guestline_client::Endpoint;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code},
    guard::Permitted,
    table::Table,
};
use crate::{
    sessions::{Principal, Verb},
    store::{Hooks, Vm, VmState},
};

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::GET,
            "/v1/vms",
            Verb::ListVms,
            "List the VMs; for a token, those granted",
            list,
        )
        .answers::<VmList>();
    table
        .add(
            Method::POST,
            "/v1/external-vms",
            Verb::RegisterVm,
            "Register a VM that somebody else runs",
            register,
        )
        .takes::<Registration>()
        .answers::<Registered>();
    table
        .add(
            Method::GET,
            "/v1/vms/{vm_id}",
            Verb::Info,
            "A VM's state",
            info,
        )
        .answers::<VmStatus>();
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VmList {
    vms: Vec<VmInfo>,
    total_count: usize,
    running_count: usize,
    starting_count: usize,
    suspended_count: usize,
    stopped_count: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VmInfo {
    id: String,
    /// starting, running, suspending, suspended or stopped.
    state: &'static str,
    /// external or embedded.
    kind: &'static str,
    vm_instance_id: Option<String>,
    created_at: String,
    last_network_activity: Option<String>,
}

/// A VM's state.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VmStatus {
    id: String,
    /// starting, running, suspending, suspended or stopped.
    state: &'static str,
    vm_instance_id: Option<String>,
    last_network_activity: Option<String>,
    cpu_time_seconds: Option<f64>,
}

/// A VM that somebody else runs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registration {
    /// `vsock:CID[:PORT]`, `hybrid:PATH[:PORT]` or `unix:PATH`, as this gateway's host sees it.
    endpoint: String,
    /// A file on this gateway's host with the VM's secret, which is read at each new connection. Without it, the agent must
    /// have none.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    secret_file: Option<PathBuf>,
    /// URLs to POST to when the VM must start, stop, suspend or go.
    #[serde(default)]
    hooks: Hooks,
    /// running, which is the default, suspended or stopped.
    #[serde(default)]
    state: Option<String>,
    /// Where relative paths and commands begin; the user's home otherwise.
    #[serde(default)]
    workdir: Option<String>,
    /// It is suspended, or stopped, after so long without an operation. Never otherwise.
    #[serde(default)]
    idle_timeout_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Registered {
    id: String,
}

impl From<&Vm> for VmInfo {
    fn from(vm: &Vm) -> Self {
        Self {
            id: vm.id.to_string(),
            state: vm.state.as_str(),
            kind: vm.kind.name(),
            vm_instance_id: vm.instance.as_ref().map(ToString::to_string),
            created_at: humantime::format_rfc3339_millis(vm.created_at).to_string(),
            last_network_activity: last_activity(vm),
        }
    }
}

/// Known only where it decides when the machine goes to sleep.
fn last_activity(vm: &Vm) -> Option<String> {
    vm.idle_timeout
        .map(|_| humantime::format_rfc3339_millis(vm.last_activity).to_string())
}

async fn list(State(app): State<App>, permitted: Permitted) -> Result<Json<VmList>, ApiError> {
    let vms = match permitted.session.principal() {
        Principal::Admin { .. } => app.store.vms().await?,
        Principal::Identity { identity, .. } => app.store.granted_vms(identity).await?,
    };
    let count = |state: VmState| vms.iter().filter(|vm| vm.state == state).count();
    Ok(Json(VmList {
        total_count: vms.len(),
        running_count: count(VmState::Running),
        starting_count: count(VmState::Starting),
        suspended_count: count(VmState::Suspended) + count(VmState::Suspending),
        stopped_count: count(VmState::Stopped),
        vms: vms.iter().map(VmInfo::from).collect(),
    }))
}

async fn info(permitted: Permitted) -> Result<Json<VmStatus>, ApiError> {
    let vm = permitted.vm()?;
    Ok(Json(VmStatus {
        id: vm.id.to_string(),
        state: vm.state.as_str(),
        vm_instance_id: vm.instance.as_ref().map(ToString::to_string),
        last_network_activity: last_activity(vm),
        cpu_time_seconds: None,
    }))
}

async fn register(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(new): JsonBody<Registration>,
) -> Result<Json<Registered>, ApiError> {
    let wrong = |text: String| ApiError::new(Code::InvalidParameters, text);
    let endpoint: Endpoint = new
        .endpoint
        .parse()
        .map_err(|error| wrong(format!("endpoint: {error}")))?;
    let state = match new.state.as_deref() {
        None | Some("running") => VmState::Running,
        Some("suspended") => VmState::Suspended,
        Some("stopped") => VmState::Stopped,
        Some(other) => {
            return Err(wrong(format!(
                "state: {other:?} is not running, suspended or stopped"
            )));
        }
    };
    check_hooks(&new.hooks)?;
    check_workdir(new.workdir.as_deref()).map_err(wrong)?;
    if new
        .secret_file
        .as_ref()
        .is_some_and(|file| !file.is_absolute())
    {
        return Err(wrong("secretFile: it is no absolute path".into()));
    }
    permitted.operation.begin(endpoint.to_string());
    let idle = new.idle_timeout_seconds.map(idle_timeout).transpose()?;
    let vm = app
        .machines
        .register(
            endpoint,
            new.hooks,
            new.secret_file,
            state,
            new.workdir,
            idle,
        )
        .await?;
    Ok(Json(Registered {
        id: vm.id.to_string(),
    }))
}

fn check_hooks(hooks: &Hooks) -> Result<(), ApiError> {
    let urls = [&hooks.start, &hooks.stop, &hooks.suspend, &hooks.delete];
    for url in urls.into_iter().flatten() {
        let parsed = reqwest::Url::parse(url).ok();
        if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(ApiError::new(
                Code::InvalidParameters,
                "hooks: a hook is an http or https URL",
            ));
        }
    }
    Ok(())
}

/// In seconds, and at most ten years: databases count in milliseconds.
pub(super) fn idle_timeout(seconds: u64) -> Result<Duration, ApiError> {
    const MAX: u64 = 10 * 366 * 24 * 3600;
    if (1..=MAX).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let text = format!("idleTimeoutSeconds: from 1 to {MAX}, or null for never");
    Err(ApiError::new(Code::InvalidParameters, text))
}

/// Absolute, and no NUL in it.
pub(super) fn check_workdir(workdir: Option<&str>) -> Result<(), String> {
    match workdir {
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            Err(format!("workdir: {path:?} is no absolute path"))
        }
        _ => Ok(()),
    }
}

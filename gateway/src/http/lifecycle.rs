//! Start, stop, suspend, kill, await, delete.

use std::time::Duration;

use axum::{Json, extract::State, http::Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    app::App, body::JsonBody, error::ApiError, guard::Permitted, table::Table, vms::idle_timeout,
};
use crate::{
    machines::MachineFailure,
    sessions::Verb,
    store::{Vm, VmState},
};

/// Between two looks at a machine that somebody waits for.
const AWAIT_POLL: Duration = Duration::from_millis(500);

pub(super) fn add(table: &mut Table) {
    let post = Method::POST;
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/start",
            Verb::Start,
            "Start or wake a VM",
            start,
        )
        .takes::<StartOptions>()
        .answers::<Started>();
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/stop",
            Verb::StopVm,
            "Power a VM off",
            stop,
        )
        .answers::<Stopped>();
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/suspend",
            Verb::SuspendVm,
            "Suspend a VM",
            suspend,
        )
        .answers::<Suspended>();
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/kill",
            Verb::KillVm,
            "Power a VM off, in whatever state",
            kill,
        )
        .answers::<Named>();
    table
        .add(
            post,
            "/v1/vms/{vm_id}/await",
            Verb::AwaitVm,
            "Wait until a VM does not run",
            wait,
        )
        .answers::<Exited>();
    table
        .add(
            Method::DELETE,
            "/v1/vms/{vm_id}",
            Verb::DeleteVm,
            "End and forget a VM",
            delete,
        )
        .answers::<Named>();
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StartOptions {
    /// The VM sleeps after so long without an operation; absent or null leaves it as it was. With an admin key alone.
    #[serde(default)]
    idle_timeout_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Started {
    id: String,
    domains: Vec<String>,
    console_url: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    vm_id: String,
    vm_instance_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Suspended {
    id: String,
    vm_instance_id: String,
    snapshot_layer_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Named {
    id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Exited {
    id: String,
    exit_status: String,
}

async fn start(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(options): JsonBody<StartOptions>,
) -> Result<Json<Started>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    if let Some(seconds) = options.idle_timeout_seconds {
        // A token wakes; how long the VM stays awake is the admin's choice.
        permitted.session.check_admin(Verb::ResizeVm)?;
        let limit = idle_timeout(seconds)?;
        app.store.set_idle_timeout(&vm.id, Some(limit)).await?;
    }
    app.machines.awake(vm).await?;
    Ok(Json(Started {
        id: vm.id.to_string(),
        domains: Vec::new(),
        console_url: None,
    }))
}

async fn stop(State(app): State<App>, permitted: Permitted) -> Result<Json<Stopped>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    app.machines.stop(vm).await?;
    Ok(Json(Stopped {
        vm_id: vm.id.to_string(),
        vm_instance_id: instance(vm),
    }))
}

async fn suspend(
    State(app): State<App>,
    permitted: Permitted,
) -> Result<Json<Suspended>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    app.machines.suspend(vm).await?;
    // There are no snapshots yet, and so no layer that the memory became.
    Ok(Json(Suspended {
        id: vm.id.to_string(),
        vm_instance_id: instance(vm),
        snapshot_layer_id: String::new(),
    }))
}

/// A VM that is off already is as it was asked to be.
async fn kill(State(app): State<App>, permitted: Permitted) -> Result<Json<Named>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    match app.machines.stop(vm).await {
        Ok(()) | Err(MachineFailure::NotRunning) => Ok(Json(Named {
            id: vm.id.to_string(),
        })),
        Err(failure) => Err(failure.into()),
    }
}

async fn wait(State(app): State<App>, permitted: Permitted) -> Result<Json<Exited>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    let lease = app.live.lease(&permitted.session);
    loop {
        let exit_status = match app.store.vm(&vm.id).await? {
            None => "deleted",
            Some(now) => match now.state {
                VmState::Stopped | VmState::Suspended => now.state.as_str(),
                VmState::Starting | VmState::Running | VmState::Suspending => {
                    tokio::select! {
                        () = tokio::time::sleep(AWAIT_POLL) => continue,
                        cut = lease.cut() => return Err(cut.into()),
                    }
                }
            },
        };
        return Ok(Json(Exited {
            id: vm.id.to_string(),
            exit_status: exit_status.into(),
        }));
    }
}

async fn delete(State(app): State<App>, permitted: Permitted) -> Result<Json<Named>, ApiError> {
    let vm = permitted.vm()?;
    permitted.operation.begin_unnamed();
    app.machines.delete(vm).await?;
    Ok(Json(Named {
        id: vm.id.to_string(),
    }))
}

/// Machines that were registered running have no id of their run.
fn instance(vm: &Vm) -> String {
    vm.instance
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

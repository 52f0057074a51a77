//! `POST /v1/vms`: a machine of this gateway's own, with its groups, users, files and services.

mod accounts;
mod request;

use axum::{Json, extract::State, http::Method};
use guestline_client::{
    CreateGroup, CreateUser, Error as GuestError, ErrorReason, LogOptions, ServiceAction, System,
    WriteOptions,
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code},
    guard::Permitted,
    table::Table,
};
use crate::{ids::VmId, machines::NewMachine, sessions::Verb, store::Vm};
use request::{CreateVm, Plan, PlannedService};

/// Of the log of a service that failed.
const DIAGNOSTIC_LINES: u32 = 50;

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::POST,
            "/v1/vms",
            Verb::CreateVm,
            "Create a VM and start it",
            create,
        )
        .takes::<CreateVm>()
        .answers::<Created>();
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Created {
    id: String,
    /// None are given out, but the SDK wants a list.
    domains: Vec<String>,
}

async fn create(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(request): JsonBody<CreateVm>,
) -> Result<Json<Created>, ApiError> {
    let plan = request.plan(app.settings.idle_timeout)?;
    let id = VmId::random();
    permitted.operation.begin(id.as_str());
    let machine = NewMachine {
        id,
        users: plan.plain_users(),
        memory_mib: plan.memory_mib,
        cpus: plan.cpus,
        disk_gib: plan.disk_gib,
        packages: plan.packages.clone(),
        workdir: plan.workdir.clone(),
        idle_timeout: plan.idle_timeout,
        kept_until: plan.kept_until,
    };
    // On a task of its own: a client that goes away must not leave half a machine.
    let made = tokio::spawn(make(app, machine, plan));
    let vm = made
        .await
        .map_err(|_| ApiError::new(Code::Internal, "the gateway failed; its log says how"))??;
    Ok(Json(Created {
        id: vm.id.to_string(),
        domains: Vec::new(),
    }))
}

async fn make(app: App, machine: NewMachine, plan: Plan) -> Result<Vm, ApiError> {
    let vm = app.machines.create(machine).await?;
    let set_up = set_up(&app, &vm, &plan);
    let done = match plan.ready_limit {
        None => set_up.await,
        Some(limit) => tokio::time::timeout(limit, set_up)
            .await
            .unwrap_or_else(|_| {
                let text = format!("the VM was not set up within {limit:?}");
                Err(ApiError::new(Code::VmStartTimeout, text))
            }),
    };
    if let Err(error) = done {
        if let Err(failure) = app.machines.delete(&vm).await {
            tracing::warn!(vm = %vm.id, error = %failure, "a VM that could not be set up was left behind");
        }
        return Err(error);
    }
    Ok(vm)
}

/// Groups, then users, files and services, all as root.
async fn set_up(app: &App, vm: &Vm, plan: &Plan) -> Result<(), ApiError> {
    if plan.needs_no_guest() {
        return Ok(());
    }
    let root = app.machines.root_of(vm).await?;
    let guest = root.vm();
    let system = guest.system();
    for group in &plan.groups {
        let new = CreateGroup {
            name: group.name.clone(),
            gid: group.gid,
            system: group.system.unwrap_or_default(),
        };
        system.create_group(new).await.map_err(|error| {
            setup_error(error, Code::GroupAlreadyExists, "groupName", &group.name)
        })?;
    }
    for user in plan.other_users() {
        let new = CreateUser {
            name: user.name.clone(),
            uid: user.uid,
            groups: user.groups.clone().unwrap_or_default(),
            home: user.home.clone(),
            shell: user.shell.clone(),
            system: user.system.unwrap_or_default(),
            comment: user.gecos.clone().unwrap_or_default(),
        };
        system
            .create_user(new)
            .await
            .map_err(|error| setup_error(error, Code::UserAlreadyExists, "userName", &user.name))?;
    }
    for file in &plan.files {
        let mode = if file.executable { 0o755 } else { 0o644 };
        let options = WriteOptions::replace().parents(true).permissions(mode);
        let written = async {
            let mut writer = guest.files().write_with(&file.path, options).await?;
            writer.write(file.content.clone()).await?;
            writer.finish().await
        };
        written
            .await
            .map_err(|error| setup_failed(format!("{}: {error}", file.path)))?;
    }
    start_services(&system, &plan.services).await
}

/// One after another. Those that only had to run once go when all have started: others may require them until then.
async fn start_services(system: &System, services: &[PlannedService]) -> Result<(), ApiError> {
    for service in services {
        let name = &service.unit.name;
        if let Err(error) = system.create_service(service.unit.clone()).await {
            let error = setup_error(error, Code::ServiceAlreadyExists, "serviceName", name);
            return Err(match error.code() {
                Code::VmSetupFailed => error.with("diagnostics", diagnose(system, name).await),
                _ => error,
            });
        }
    }
    for service in services.iter().filter(|service| service.once).rev() {
        let name = &service.unit.name;
        let removed = system.control_service(name, ServiceAction::Remove).await;
        removed.map_err(|error| setup_failed(format!("{name}: {error}")))?;
    }
    Ok(())
}

/// How a service that failed is, and what it said: as the SDK shows it.
async fn diagnose(system: &System, service: &str) -> Value {
    let status = system.control_service(service, ServiceAction::Status).await;
    let states = match &status {
        Ok(it) => json!([{
            "activeState": it.active_state,
            "subState": it.sub_state,
            "services": [it.name],
        }]),
        Err(_) => json!([]),
    };
    let log = service_log(system, service).await.unwrap_or_default();
    json!({
        "serviceStates": states,
        "failedServiceLogs": [{"unitName": format!("{service}.service"), "log": log}],
    })
}

async fn service_log(system: &System, service: &str) -> Result<String, GuestError> {
    let options = LogOptions {
        lines: Some(DIAGNOSTIC_LINES),
        ..LogOptions::default()
    };
    let mut lines = system.service_logs(service, options).await?;
    let mut log = String::new();
    for _ in 0..DIAGNOSTIC_LINES {
        let Some(line) = lines.next().await? else {
            break;
        };
        log.push_str(&String::from_utf8_lossy(&line.text));
        log.push('\n');
    }
    Ok(log)
}

fn setup_error(error: GuestError, exists: Code, field: &str, name: &str) -> ApiError {
    match error.reason() {
        Some(ErrorReason::AlreadyExists) => {
            ApiError::new(exists, error.to_string()).with(field, name)
        }
        _ => setup_failed(format!("{name}: {error}")),
    }
}

fn setup_failed(reason: String) -> ApiError {
    ApiError::new(Code::VmSetupFailed, reason.as_str()).with("failedReason", reason)
}

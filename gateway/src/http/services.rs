//! `…/systemd/…`: the guest's services, as the acting user may command them.

mod unit;

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::Method,
};
use guestline_client::{Error as GuestError, ErrorReason, LogOptions, ServiceAction, System};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code},
    guard::Permitted,
    table::Table,
};
use crate::{machines::AwakeGuest, sessions::Verb};
pub(super) use unit::ServiceSpec;

/// Lines of a log in one answer.
const MAX_LINES: u32 = 10_000;

/// Of all lines of one answer: they are held in memory, and come from a guest.
const MAX_LOG_BYTES: usize = 8 << 20;
const LINES: u32 = 100;

/// Services in one request.
const MAX_SERVICES: usize = 100;

pub(super) fn add(table: &mut Table) {
    const SERVICES: &str = "/v1/vms/{vm_id}/systemd/services";
    let (get, post) = (Method::GET, Method::POST);
    let verb = Verb::Services;
    table
        .add(get.clone(), SERVICES, verb, "List services", list)
        .answers::<ServiceList>();
    table
        .add(post.clone(), SERVICES, verb, "Create a service", create)
        .takes::<ServiceSpec>()
        .answers::<Created>();
    const SERVICE: &str = "/v1/vms/{vm_id}/systemd/services/{service_id}";
    table
        .add(
            Method::DELETE,
            SERVICE,
            verb,
            "Stop and delete a service",
            delete,
        )
        .answers::<Done>();
    const STATUS: &str = "/v1/vms/{vm_id}/systemd/services/{service_id}/status";
    table
        .add(get.clone(), STATUS, verb, "A service's status", status)
        .answers::<Status>();
    const LOGS: &str = "/v1/vms/{vm_id}/systemd/services/{service_id}/logs";
    table
        .add(get, LOGS, verb, "A service's logs", logs)
        .query(&["lines", "since"])
        .answers::<Logs>();
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/systemd/start",
            verb,
            "Start services",
            start,
        )
        .takes::<Named>()
        .answers::<Results>();
    table
        .add(
            post.clone(),
            "/v1/vms/{vm_id}/systemd/stop",
            verb,
            "Stop services",
            stop,
        )
        .takes::<Named>()
        .answers::<Results>();
    table
        .add(
            post,
            "/v1/vms/{vm_id}/systemd/restart",
            verb,
            "Restart services",
            restart,
        )
        .takes::<Named>()
        .answers::<Results>();
}

#[derive(Debug, Serialize, ToSchema)]
struct ServiceList {
    services: Vec<ServiceName>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ServiceName {
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Created {
    success: bool,
    message: String,
    service_name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Done {
    success: bool,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceStatus)]
struct Status {
    name: String,
    active_state: String,
    sub_state: String,
    load_state: String,
    description: String,
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    lines: Option<u32>,
    /// RFC 3339.
    since: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceLogs)]
struct Logs {
    logs: Vec<Line>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceLogLine)]
struct Line {
    message: String,
    timestamp: String,
    priority: Option<String>,
    unit: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceNames)]
struct Named {
    services: Vec<Id>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceId)]
struct Id {
    id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceResults)]
struct Results {
    results: Vec<Outcome>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceResult)]
struct Outcome {
    service_id: String,
    success: bool,
    message: String,
}

async fn list(State(app): State<App>, permitted: Permitted) -> Result<Json<ServiceList>, ApiError> {
    let guest = app.guest(&permitted).await?;
    let services = system(&guest).services("").await?;
    let services = services.into_iter().map(|service| ServiceName {
        name: service.name.trim_end_matches(".service").into(),
    });
    Ok(Json(ServiceList {
        services: services.collect(),
    }))
}

async fn create(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(spec): JsonBody<ServiceSpec>,
) -> Result<Json<Created>, ApiError> {
    permitted.operation.begin(format!("create {}", spec.name()));
    let service = spec.to_service()?;
    let name = service.name.clone();
    let guest = app.guest(&permitted).await?;
    if let Err(error) = system(&guest).create_service(service).await {
        return Err(match error.reason() {
            Some(ErrorReason::AlreadyExists) => {
                ApiError::new(Code::ServiceAlreadyExists, error.to_string())
                    .with("serviceName", name)
            }
            _ => error.into(),
        });
    }
    if spec.is_for_once() {
        let removed = system(&guest)
            .control_service(&name, ServiceAction::Remove)
            .await;
        removed.map_err(service_error)?;
    }
    Ok(Json(Created {
        success: true,
        message: format!("{name} was created"),
        service_name: name,
    }))
}

async fn delete(
    State(app): State<App>,
    Path((_, service)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Done>, ApiError> {
    permitted.operation.begin(format!("delete {service}"));
    let guest = app.guest(&permitted).await?;
    let removed = system(&guest)
        .control_service(&service, ServiceAction::Remove)
        .await;
    removed.map_err(service_error)?;
    Ok(Json(Done {
        success: true,
        message: format!("{service} was deleted"),
    }))
}

async fn status(
    State(app): State<App>,
    Path((_, service)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Status>, ApiError> {
    permitted.operation.begin(format!("status of {service}"));
    let guest = app.guest(&permitted).await?;
    let found = system(&guest)
        .control_service(&service, ServiceAction::Status)
        .await;
    let found = found.map_err(service_error)?;
    if found.load_state == "not-found" {
        return Err(ApiError::new(
            Code::ServiceNotFound,
            format!("there is no service {service}"),
        ));
    }
    Ok(Json(Status {
        name: found.name.trim_end_matches(".service").into(),
        active_state: found.active_state,
        sub_state: found.sub_state,
        load_state: found.load_state,
        description: found.description,
    }))
}

async fn logs(
    State(app): State<App>,
    Path((_, service)): Path<(String, String)>,
    Query(query): Query<LogQuery>,
    permitted: Permitted,
) -> Result<Json<Logs>, ApiError> {
    permitted.operation.begin(format!("logs of {service}"));
    let wrong = || {
        ApiError::new(
            Code::InvalidParameters,
            "since is no time such as 2026-01-31T12:00:00Z",
        )
    };
    let since = query
        .since
        .as_deref()
        .map(humantime::parse_rfc3339_weak)
        .transpose();
    let most = query.lines.unwrap_or(LINES).min(MAX_LINES);
    let options = LogOptions {
        lines: Some(most),
        since: since.map_err(|_| wrong())?,
        follow: false,
    };
    let guest = app.guest(&permitted).await?;
    let stream = system(&guest).service_logs(&service, options).await;
    let mut stream = stream.map_err(service_error)?;
    let (mut logs, mut bytes) = (Vec::new(), 0);
    // It is the guest who says where they end.
    while logs.len() < most as usize {
        let Some(line) = stream.next().await.map_err(service_error)? else {
            break;
        };
        bytes += line.text.len();
        if bytes > MAX_LOG_BYTES {
            return Err(ApiError::new(
                Code::InvalidParameters,
                format!("the lines have more than {MAX_LOG_BYTES} bytes: ask for fewer"),
            ));
        }
        logs.push(Line {
            message: String::from_utf8_lossy(&line.text).into_owned(),
            timestamp: timestamp(line.time),
            priority: line.priority.map(|priority| priority.to_string()),
            unit: Some(service.clone()),
        });
    }
    Ok(Json(Logs { logs }))
}

async fn start(
    app: State<App>,
    permitted: Permitted,
    named: JsonBody<Named>,
) -> Result<Json<Results>, ApiError> {
    control(app, permitted, named, ServiceAction::Start, "start").await
}

async fn stop(
    app: State<App>,
    permitted: Permitted,
    named: JsonBody<Named>,
) -> Result<Json<Results>, ApiError> {
    control(app, permitted, named, ServiceAction::Stop, "stop").await
}

async fn restart(
    app: State<App>,
    permitted: Permitted,
    named: JsonBody<Named>,
) -> Result<Json<Results>, ApiError> {
    control(app, permitted, named, ServiceAction::Restart, "restart").await
}

/// One after another, each with its own result.
async fn control(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(named): JsonBody<Named>,
    action: ServiceAction,
    verb: &str,
) -> Result<Json<Results>, ApiError> {
    if named.services.len() > MAX_SERVICES {
        return Err(ApiError::new(
            Code::InvalidParameters,
            format!("more than {MAX_SERVICES} services"),
        ));
    }
    let ids: Vec<&str> = named
        .services
        .iter()
        .map(|service| service.id.as_str())
        .collect();
    permitted
        .operation
        .begin(format!("{verb} {}", ids.join(" ")));
    let guest = app.guest(&permitted).await?;
    let mut results = Vec::new();
    for id in ids {
        let (success, message) = match system(&guest).control_service(id, action).await {
            Ok(service) => (true, service.active_state),
            Err(
                error @ (GuestError::Connect { .. }
                | GuestError::Lost(_)
                | GuestError::Refused { .. }),
            ) => {
                return Err(error.into());
            }
            Err(error) => (false, error.to_string()),
        };
        results.push(Outcome {
            service_id: id.into(),
            success,
            message,
        });
    }
    Ok(Json(Results { results }))
}

fn system(guest: &AwakeGuest) -> System {
    guest.vm().system()
}

fn service_error(error: GuestError) -> ApiError {
    match error.reason() {
        Some(ErrorReason::NotFound) => ApiError::new(Code::ServiceNotFound, error.to_string()),
        _ => error.into(),
    }
}

fn timestamp(time: Option<SystemTime>) -> String {
    let time = time
        .unwrap_or(SystemTime::UNIX_EPOCH)
        .max(SystemTime::UNIX_EPOCH);
    // Beyond the year 9999 there is no RFC 3339.
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(time.min(end)).to_string()
}

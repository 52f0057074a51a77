//! The admin's windows: the audit log, and the metrics.

use std::time::SystemTime;

use axum::{
    Json,
    extract::{Query, State},
    http::{Method, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    app::App,
    error::{ApiError, Code},
    table::{Answer, Table},
};
use crate::{
    ids::{IdentityId, VmId},
    sessions::Verb,
    store::{AuditFilter, to_millis},
};

/// Events in one answer.
const MAX_EVENTS: u32 = 1000;
const EVENTS: u32 = 100;

/// What Prometheus reads.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::GET,
            "/v1/audit",
            Verb::ReadAudit,
            "What happened, the newest first",
            audit,
        )
        .query(&["vm", "identity", "uid", "before", "limit"])
        .answers::<Events>();
    table
        .add(
            Method::GET,
            "/metrics",
            Verb::ReadMetrics,
            "For Prometheus",
            metrics,
        )
        .answers_bytes(OPENMETRICS);
}

#[derive(Debug, Deserialize)]
struct AuditQuery {
    vm: Option<String>,
    identity: Option<String>,
    uid: Option<u32>,
    /// RFC 3339.
    before: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Events {
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
}

async fn audit(
    State(app): State<App>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Events>, ApiError> {
    let wrong = |text: &str| ApiError::new(Code::InvalidParameters, text);
    let before = query
        .before
        .as_deref()
        .map(humantime::parse_rfc3339_weak)
        .transpose();
    let before: Option<SystemTime> =
        before.map_err(|_| wrong("before is no time such as 2026-01-31T12:00:00Z"))?;
    let is_vm = query
        .vm
        .as_deref()
        .is_none_or(|vm| VmId::parse(vm).is_some());
    let is_identity = query
        .identity
        .as_deref()
        .is_none_or(|identity| IdentityId::parse(identity).is_some());
    if !is_vm || !is_identity {
        return Err(wrong("vm and identity are ids"));
    }
    let filter = AuditFilter {
        vm: query.vm,
        identity: query.identity,
        uid: query.uid,
        before: before.map(to_millis),
        limit: query.limit.unwrap_or(EVENTS).min(MAX_EVENTS),
    };
    Ok(Json(Events {
        events: app.store.events(&filter).await?,
    }))
}

async fn metrics(State(app): State<App>) -> Answer {
    let text = app.metrics.to_text(app.live.count());
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

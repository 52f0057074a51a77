//! What answers without a credential: whether the gateway lives, and whether it can serve.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{app::App, table::Table};

pub(super) fn add(table: &mut Table) {
    table.add_public("/health", "Whether the process lives", health);
    table.add_public(
        "/ready",
        "Whether requests can be served: the database answers",
        ready,
    );
}

async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    match app.store.ping().await {
        Ok(()) => Json(json!({"status": "ok"})).into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Json(json!({"status": "no database"})),
            )
                .into_response()
        }
    }
}

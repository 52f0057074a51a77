//! The HTTP API: the contract of the `freestyle-sandboxes` SDK, and what we add to it. Handlers check, convert, delegate and
//! convert back; who may do it was decided before (`guard.rs`).

mod admin;
mod app;
mod body;
mod create;
mod error;
mod exec;
mod files;
mod guard;
mod identities;
mod lifecycle;
mod limits;
mod openapi;
mod permissions;
mod public;
mod server;
mod services;
mod ssh_keys;
mod table;
mod terminals;
#[cfg(test)]
mod tests;
mod transfer;
mod unbuilt;
mod vms;
mod watch;

pub(crate) use app::{App, Parts, Settings};
pub(crate) use limits::Limits;
pub(crate) use server::{ServerConfig, Tls, serve};

use axum::Router;
use tower_http::{catch_panic::CatchPanicLayer, cors};

use error::{ApiError, Code};
use table::{Route, Table};

/// The whole API.
pub(crate) fn router(app: App) -> Router {
    let (_, router) = routes(app);
    router
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(ApiError::new(
                Code::Internal,
                "the gateway failed; its log says how",
            ))
        }))
        .layer(cors_layer())
}

fn routes(app: App) -> (Vec<Route>, Router) {
    let mut table = Table::new(app);
    public::add(&mut table);
    identities::add(&mut table);
    ssh_keys::add(&mut table);
    permissions::add(&mut table);
    vms::add(&mut table);
    create::add(&mut table);
    lifecycle::add(&mut table);
    files::add(&mut table);
    transfer::add(&mut table);
    exec::add(&mut table);
    services::add(&mut table);
    terminals::add(&mut table);
    watch::add(&mut table);
    admin::add(&mut table);
    unbuilt::add(&mut table);
    table.finish()
}

/// For pages of any origin: a credential is in a header that the page sets, never in a cookie that a browser adds.
fn cors_layer() -> cors::CorsLayer {
    use axum::http::{HeaderName, Method, header};
    let sdk = [
        "x-freestyle-sdk",
        "x-freestyle-sdk-version",
        "x-freestyle-background-after-secs",
    ];
    let mut allowed = vec![
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::RANGE,
        header::USER_AGENT,
    ];
    allowed.push(guard::TOKEN_HEADER.clone());
    allowed.extend(guard::USER_HEADERS.clone());
    allowed.extend(sdk.map(HeaderName::from_static));
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
    ];
    let exposed = [
        HeaderName::from_static("x-freestyle-background-request-id"),
        header::CONTENT_RANGE,
        header::ACCEPT_RANGES,
    ];
    cors::CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods(methods)
        .allow_headers(allowed)
        .expose_headers(exposed)
        .max_age(std::time::Duration::from_secs(3600))
}

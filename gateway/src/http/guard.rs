//! What every request passes before its handler: rate limit, credential, decision, audit. The handler gets a [`Permitted`],
//! and there is no other way to make one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use guestline_client::Username;
use percent_encoding::percent_decode_str;

use super::{
    app::App,
    error::{ApiError, Code, FailedWith},
};
use crate::{
    audit::{Actor, Operation},
    sessions::{Reach, Session, Verb},
    store::Vm,
};

/// Where the SDK puts an access token.
pub(crate) static TOKEN_HEADER: HeaderName =
    HeaderName::from_static("x-freestyle-identity-access-token");

/// Where the SDK puts the Linux user, and how an old page of its documents spells that.
pub(crate) static USER_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-freestyle-vm-linux-user-id"),
    HeaderName::from_static("x-freestyle-linux-user-id"),
];

/// The subprotocol of the exec WebSocket, which the answer chooses.
pub(super) const EXEC_PROTOCOL: &str = "guestline.exec.v1";

/// What a page adds to it, because it can set no headers there: subprotocols that carry the token and the Linux user. They
/// are never answered with.
const TOKEN_PROTOCOL: &str = "guestline.token.";
const USER_PROTOCOL: &str = "guestline.user.";

/// The prefix of paths that name a VM next.
const VMS: &str = "/v1/vms/";

/// What a route's requests are held against.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) app: App,
    pub(super) verb: Verb,
    /// Whether the route's path names a VM.
    pub(super) names_vm: bool,
}

/// On a response whose body goes on for a while: what streams it says how the operation ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndsLater;

/// A request that may go on: who, what, where, as whom; and its entry in the audit log.
#[derive(Clone, Debug)]
pub(crate) struct Permitted {
    pub(crate) session: Session,
    pub(crate) operation: Operation,
}

impl Permitted {
    /// The VM of the route.
    pub(crate) fn vm(&self) -> Result<&Vm, ApiError> {
        self.session
            .vm()
            .ok_or_else(|| ApiError::new(Code::VmNotFound, "there is no such VM"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Permitted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let permitted = parts.extensions.get().cloned();
        permitted.ok_or_else(|| ApiError::new(Code::Internal, "this route has no guard"))
    }
}

/// The middleware of each route.
pub(super) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let app = gate.app.clone();
    let (mut parts, body) = request.into_parts();
    let permitted = match admit(&gate, &parts).await {
        Ok(permitted) => permitted,
        Err(error) => {
            app.metrics.refused(error.code().as_str());
            return error.into_response();
        }
    };
    let operation = permitted.operation.clone();
    parts.extensions.insert(permitted);
    let response = next.run(Request::from_parts(parts, body)).await;
    let result = match response.extensions().get() {
        Some(FailedWith(code)) => code.as_str(),
        None => "ok",
    };
    if response.extensions().get::<EndsLater>().is_none() {
        operation.set_result(result);
    }
    response
}

/// For paths and methods that no route has: without a credential, they answer as all others do.
pub(super) async fn nowhere(State(app): State<App>, request: Request, code: Code) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        app.limits.check_source(peer(&app, &parts))?;
        app.sessions
            .authenticate(credential(&parts.headers).as_deref())
            .await?;
        Err::<(), _>(ApiError::new(code, "there is no such route"))
    };
    match answer.await {
        Ok(()) => ().into_response(),
        Err(error) => error.into_response(),
    }
}

async fn admit(gate: &Gate, request: &Parts) -> Result<Permitted, ApiError> {
    let app = &gate.app;
    let peer = peer(app, request);
    app.limits.check_source(peer)?;
    let vm = gate.names_vm.then(|| vm_of(request.uri.path()));
    let asked = app
        .sessions
        .ask(credential(&request.headers).as_deref(), vm.as_deref())
        .await
        .map_err(ApiError::from);
    let asked = asked.map_err(|error| match error.code() {
        Code::Unauthorized => error.with("route", request.uri.path()),
        _ => error,
    })?;
    app.limits.check_principal(asked.principal())?;
    let user = linux_user(&request.headers, gate.verb)?;
    let principal = asked.principal().clone();
    let session = match asked.open(gate.verb, user.clone()) {
        Ok(session) => session,
        Err(refusal) => {
            let error = ApiError::from(refusal);
            let actor = Actor::new(
                &principal,
                gate.verb,
                vm.as_deref(),
                user.as_str(),
                peer.to_string(),
            );
            app.audit.refused(actor, error.code().as_str()).await;
            return Err(match error.code() {
                Code::VmNotFound => error.with("vmId", vm.unwrap_or_default()),
                _ => error,
            });
        }
    };
    let operation = app
        .audit
        .operation(Actor::of(&session, peer.to_string()))
        .await;
    let operation =
        operation.ok_or_else(|| ApiError::new(Code::Internal, "the gateway is ending"))?;
    Ok(Permitted { session, operation })
}

/// `Authorization: Bearer …` first, as with the SDK, which never sends both; a WebSocket's subprotocol last.
fn credential(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(&header::AUTHORIZATION).map(|value| match value.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => secret.trim(),
        _ => "",
    });
    bearer
        .or_else(|| text(&TOKEN_HEADER))
        .or_else(|| subprotocol(headers, TOKEN_PROTOCOL))
        .map(str::to_owned)
}

/// What follows `prefix` in a subprotocol that a WebSocket asks for.
fn subprotocol<'a>(headers: &'a HeaderMap, prefix: &str) -> Option<&'a str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|name| name.trim().strip_prefix(prefix))
}

/// No header is root. Routes that involve no Linux user do not look.
fn linux_user(headers: &HeaderMap, verb: Verb) -> Result<Username, ApiError> {
    if verb.reach() != Reach::VmAsUser {
        return Ok(Username::root());
    }
    let value = USER_HEADERS
        .iter()
        .find_map(|name| headers.get(name))
        .map(|value| value.as_bytes())
        .or_else(|| subprotocol(headers, USER_PROTOCOL).map(str::as_bytes));
    let Some(value) = value else {
        return Ok(Username::root());
    };
    let name = std::str::from_utf8(value).ok();
    let name = name.and_then(|name| Username::try_from(name).ok());
    name.ok_or_else(|| {
        ApiError::new(
            Code::ValidationError,
            "the user header holds no Linux user's name",
        )
    })
}

/// The segment after `/v1/vms/`, decoded once; what it is, the store decides.
fn vm_of(path: &str) -> String {
    let rest = path.strip_prefix(VMS).unwrap_or_default();
    let segment = rest.split('/').next().unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn peer(app: &App, request: &Parts) -> IpAddr {
    let forwarded = || {
        let value = request
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()?;
        value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    };
    let socket = || {
        request
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0.ip())
    };
    let forwarded = app.settings.behind_proxy.then(forwarded).flatten();
    forwarded
        .or_else(socket)
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

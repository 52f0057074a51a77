//! `/identity/v1/identities`, their tokens, and whoami.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::Method,
};
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
    ids::{IdentityId, TokenId},
    sessions::{Holder, Principal, Secret, Verb},
};

/// The longest page, and the default.
const MAX_PAGE: u64 = 1000;
const PAGE: u64 = 100;

pub(super) fn add(table: &mut Table) {
    const IDENTITIES: &str = "/identity/v1/identities";
    const IDENTITY: &str = "/identity/v1/identities/{identity}";
    const TOKENS: &str = "/identity/v1/identities/{identity}/tokens";
    const TOKEN: &str = "/identity/v1/identities/{identity}/tokens/{token}";
    table
        .add(
            Method::GET,
            "/auth/v1/whoami",
            Verb::WhoAmI,
            "Who the credential is",
            whoami,
        )
        .answers::<WhoAmI>();
    table
        .add(
            Method::POST,
            IDENTITIES,
            Verb::Identities,
            "Create an identity",
            create,
        )
        .answers::<Identity>();
    table
        .add(
            Method::GET,
            IDENTITIES,
            Verb::Identities,
            "List identities",
            list,
        )
        .query(&["limit", "offset"])
        .answers::<IdentityList>();
    table
        .add(
            Method::DELETE,
            IDENTITY,
            Verb::Identities,
            "Delete an identity, its tokens and grants",
            delete,
        )
        .answers::<Empty>();
    table
        .add(
            Method::POST,
            TOKENS,
            Verb::Tokens,
            "Create a token; its secret is shown this once",
            create_token,
        )
        .takes::<NewToken>()
        .answers::<CreatedToken>();
    table
        .add(
            Method::GET,
            TOKENS,
            Verb::Tokens,
            "List an identity's tokens, without their secrets",
            list_tokens,
        )
        .answers::<TokenList>();
    table
        .add(
            Method::DELETE,
            TOKEN,
            Verb::Tokens,
            "Revoke a token",
            revoke_token,
        )
        .answers::<Empty>();
}

/// `{}`: the SDK wants JSON of every success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Empty {}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    account_id: String,
    identity_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Identity {
    id: String,
    managed: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct IdentityList {
    identities: Vec<Identity>,
    offset: u64,
    total: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewToken {
    /// It is refused after this time; absent or null: valid until it is revoked.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CreatedToken {
    id: String,
    token: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenList {
    tokens: Vec<Token>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Token {
    id: String,
}

/// As the SDK sends it: a cursor that is no number arrives as `NaN`.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    limit: Option<String>,
    offset: Option<String>,
}

impl PageQuery {
    /// Offset and limit.
    pub(super) fn read(&self) -> Result<(u64, u64), ApiError> {
        let number =
            |name: &str, text: &Option<String>, default: u64| match text.as_deref().map(str::parse)
            {
                None => Ok(default),
                Some(Ok(number)) => Ok(number),
                Some(Err(_)) => Err(ApiError::new(
                    Code::InvalidParameters,
                    format!("{name} is no number"),
                )),
            };
        let limit = number("limit", &self.limit, PAGE)?.min(MAX_PAGE);
        Ok((number("offset", &self.offset, 0)?, limit))
    }
}

/// What is no id names nothing.
pub(super) fn identity_id(text: &str) -> Result<IdentityId, ApiError> {
    IdentityId::parse(text).ok_or_else(no_identity)
}

pub(super) fn no_identity() -> ApiError {
    ApiError::new(Code::IdentityNotFound, "there is no such identity")
}

async fn whoami(State(app): State<App>, permitted: Permitted) -> Json<WhoAmI> {
    let identity_id = match permitted.session.principal() {
        Principal::Admin { .. } => None,
        Principal::Identity { identity, .. } => Some(identity.to_string()),
    };
    Json(WhoAmI {
        account_id: app.store.account().to_string(),
        identity_id,
    })
}

async fn create(State(app): State<App>, permitted: Permitted) -> Result<Json<Identity>, ApiError> {
    let id = IdentityId::random();
    permitted.operation.begin(format!("create {id}"));
    app.store.add_identity(&id).await?;
    Ok(Json(Identity {
        id: id.to_string(),
        managed: false,
    }))
}

async fn list(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<Json<IdentityList>, ApiError> {
    let (offset, limit) = query.read()?;
    let page = app.store.identities(offset, limit).await?;
    let identities = page.items.iter().map(|id| Identity {
        id: id.to_string(),
        managed: false,
    });
    Ok(Json(IdentityList {
        identities: identities.collect(),
        offset,
        total: page.total,
    }))
}

async fn delete(
    State(app): State<App>,
    Path(identity): Path<String>,
    permitted: Permitted,
) -> Result<Json<Empty>, ApiError> {
    let identity = identity_id(&identity)?;
    permitted.operation.begin(format!("delete {identity}"));
    match app.store.delete_identity(&identity).await? {
        true => Ok(Json(Empty {})),
        false => Err(no_identity()),
    }
}

async fn create_token(
    State(app): State<App>,
    Path(identity): Path<String>,
    permitted: Permitted,
    JsonBody(new): JsonBody<NewToken>,
) -> Result<Json<CreatedToken>, ApiError> {
    let identity = identity_id(&identity)?;
    let secret = Secret::new_token();
    let Holder::Token(id) = secret.holder() else {
        return Err(ApiError::new(Code::Internal, "a new token is none"));
    };
    permitted
        .operation
        .begin(format!("create {id} for {identity}"));
    let expires_at = match new.expires_in_seconds {
        None => None,
        Some(seconds) => {
            let end = SystemTime::now().checked_add(Duration::from_secs(seconds));
            let end = end.filter(|end| {
                end.duration_since(SystemTime::UNIX_EPOCH)
                    .is_ok_and(|t| t.as_millis() < 1 << 62)
            });
            Some(end.ok_or_else(|| {
                ApiError::new(Code::InvalidParameters, "expiresInSeconds is too large")
            })?)
        }
    };
    match app
        .store
        .add_token(&identity, id, &secret.hash(), expires_at)
        .await?
    {
        true => Ok(Json(CreatedToken {
            id: id.to_string(),
            token: secret.reveal().into(),
        })),
        false => Err(no_identity()),
    }
}

async fn list_tokens(
    State(app): State<App>,
    Path(identity): Path<String>,
) -> Result<Json<TokenList>, ApiError> {
    let identity = identity_id(&identity)?;
    if !app.store.has_identity(&identity).await? {
        return Err(no_identity());
    }
    let tokens = app.store.tokens(&identity).await?;
    let tokens = tokens
        .iter()
        .map(|id| Token { id: id.to_string() })
        .collect();
    Ok(Json(TokenList { tokens }))
}

async fn revoke_token(
    State(app): State<App>,
    Path((identity, token)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Empty>, ApiError> {
    let identity = identity_id(&identity)?;
    let no_token = || ApiError::new(Code::NotFound, "the identity has no such token");
    let token = TokenId::parse(&token).ok_or_else(no_token)?;
    permitted
        .operation
        .begin(format!("revoke {token} of {identity}"));
    match app.store.delete_token(&identity, &token).await? {
        true => Ok(Json(Empty {})),
        false if app.store.has_identity(&identity).await? => Err(no_token()),
        false => Err(no_identity()),
    }
}

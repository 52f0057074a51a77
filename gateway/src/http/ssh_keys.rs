//! `/identity/v1/identities/{identity}/ssh-keys`: public keys that prove an identity over SSH.

use axum::{
    Json,
    extract::{Path, State},
    http::Method,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code, full},
    guard::Permitted,
    identities::{Empty, identity_id, no_identity},
    table::Table,
};
use crate::{
    ids::SshKeyId,
    sessions::{PublicKey, Verb},
    store::{SshKey, SshKeyOutcome},
};

/// Of a key's name.
const MAX_NAME: usize = 128;

pub(super) fn add(table: &mut Table) {
    const KEYS: &str = "/identity/v1/identities/{identity}/ssh-keys";
    const KEY: &str = "/identity/v1/identities/{identity}/ssh-keys/{key}";
    table
        .add(
            Method::POST,
            KEYS,
            Verb::SshKeys,
            "Register an SSH public key: its owner is this identity over SSH",
            create,
        )
        .takes::<NewSshKey>()
        .answers::<SshKeyView>();
    table
        .add(
            Method::GET,
            KEYS,
            Verb::SshKeys,
            "List an identity's SSH keys",
            list,
        )
        .answers::<SshKeyList>();
    table
        .add(
            Method::DELETE,
            KEY,
            Verb::SshKeys,
            "Remove an SSH key; connections that it opened are cut",
            remove,
        )
        .answers::<Empty>();
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewSshKey {
    /// One line as ssh-keygen writes it: type, key, comment. ssh-ed25519 or ecdsa-sha2-*, also of security keys.
    public_key: String,
    /// For people; the key's comment otherwise.
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SshKeyView {
    id: String,
    name: String,
    /// As ssh-keygen -l prints it.
    fingerprint: String,
    public_key: String,
    /// RFC 3339.
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SshKeyList {
    ssh_keys: Vec<SshKeyView>,
}

impl From<SshKey> for SshKeyView {
    fn from(key: SshKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            fingerprint: key.fingerprint.as_str().into(),
            public_key: key.public_key,
            created_at: humantime::format_rfc3339_millis(key.created_at).to_string(),
        }
    }
}

async fn create(
    State(app): State<App>,
    Path(identity): Path<String>,
    permitted: Permitted,
    JsonBody(new): JsonBody<NewSshKey>,
) -> Result<Json<SshKeyView>, ApiError> {
    let identity = identity_id(&identity)?;
    let key = PublicKey::parse(&new.public_key);
    let key = key.map_err(|error| ApiError::new(Code::InvalidParameters, full(&error)))?;
    let name = new.name.unwrap_or_else(|| key.comment().into());
    if name.len() > MAX_NAME || name.contains(char::is_control) {
        let text = "name: at most 128 bytes, and no control characters";
        return Err(ApiError::new(Code::InvalidParameters, text));
    }
    let fingerprint = key.fingerprint().as_str();
    permitted
        .operation
        .begin(format!("add {fingerprint} to {identity}"));
    match app.store.add_ssh_key(&identity, &key, &name).await? {
        SshKeyOutcome::Added(key) => Ok(Json(key.into())),
        SshKeyOutcome::NoIdentity => Err(no_identity()),
        SshKeyOutcome::AlreadyThere => Err(ApiError::new(
            Code::SshKeyExists,
            "an identity has this key already: a key proves one identity",
        )),
    }
}

async fn list(
    State(app): State<App>,
    Path(identity): Path<String>,
) -> Result<Json<SshKeyList>, ApiError> {
    let identity = identity_id(&identity)?;
    if !app.store.has_identity(&identity).await? {
        return Err(no_identity());
    }
    let keys = app.store.ssh_keys(&identity).await?;
    Ok(Json(SshKeyList {
        ssh_keys: keys.into_iter().map(SshKeyView::from).collect(),
    }))
}

async fn remove(
    State(app): State<App>,
    Path((identity, key)): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Empty>, ApiError> {
    let identity = identity_id(&identity)?;
    let no_key = || ApiError::new(Code::NotFound, "the identity has no such SSH key");
    let key = SshKeyId::parse(&key).ok_or_else(no_key)?;
    permitted
        .operation
        .begin(format!("remove {key} of {identity}"));
    match app.store.delete_ssh_key(&identity, &key).await? {
        true => Ok(Json(Empty {})),
        false if app.store.has_identity(&identity).await? => Err(no_key()),
        false => Err(no_identity()),
    }
}

//! `…/permissions/vm`: the grants of an identity.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::Method,
};
use guestline_client::Username;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code},
    guard::Permitted,
    identities::{Empty, PageQuery, identity_id, no_identity},
    table::Table,
};
use crate::{
    ids::{IdentityId, VmId},
    sessions::Verb,
    store::{AllowedUsers, Grant, GrantOutcome},
};

/// Names in one grant.
const MAX_USERS: usize = 1000;

pub(super) fn add(table: &mut Table) {
    const GRANTS: &str = "/identity/v1/identities/{identity}/permissions/vm";
    const GRANT: &str = "/identity/v1/identities/{identity}/permissions/vm/{vm_id}";
    table
        .add(
            Method::GET,
            GRANTS,
            Verb::Grants,
            "List an identity's grants",
            list,
        )
        .query(&["limit", "offset"])
        .answers::<PermissionList>();
    table
        .add(Method::GET, GRANT, Verb::Grants, "A grant", get)
        .answers::<Permission>();
    table
        .add(
            Method::POST,
            GRANT,
            Verb::Grants,
            "Grant a VM, as any Linux user or some",
            grant,
        )
        .takes::<Users>()
        .answers::<Permission>();
    table
        .add(
            Method::PUT,
            GRANT,
            Verb::Grants,
            "Change which Linux users a grant reaches",
            update,
        )
        .takes::<Users>()
        .answers::<Permission>();
    table
        .add(
            Method::DELETE,
            GRANT,
            Verb::Grants,
            "Revoke a grant",
            revoke,
        )
        .answers::<Empty>();
}

/// Absent and null are not the same: see `update`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Users {
    /// Null: any user. A list: these; an empty one is nobody. Absent: any user in a new grant, an error in a change.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_users: Option<Option<Vec<String>>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Permission {
    id: String,
    vm_id: String,
    identity_id: String,
    #[schema(value_type = Option<Vec<String>>)]
    allowed_users: AllowedUsers,
    granted_at: String,
    granted_by: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct PermissionList {
    permissions: Vec<Permission>,
    offset: u64,
    total: u64,
}

impl From<Grant> for Permission {
    fn from(grant: Grant) -> Self {
        Self {
            id: grant.id.to_string(),
            vm_id: grant.vm.to_string(),
            identity_id: grant.identity.to_string(),
            allowed_users: grant.allowed_users,
            granted_at: humantime::format_rfc3339_millis(grant.granted_at).to_string(),
            granted_by: grant.granted_by,
        }
    }
}

async fn list(
    State(app): State<App>,
    Path(identity): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<PermissionList>, ApiError> {
    let (offset, limit) = query.read()?;
    let identity = identity_id(&identity)?;
    if !app.store.has_identity(&identity).await? {
        return Err(no_identity());
    }
    let page = app.store.grants(&identity, offset, limit).await?;
    let permissions = page.items.into_iter().map(Permission::from).collect();
    Ok(Json(PermissionList {
        permissions,
        offset,
        total: page.total,
    }))
}

async fn get(
    State(app): State<App>,
    Path(names): Path<(String, String)>,
) -> Result<Json<Permission>, ApiError> {
    let (identity, vm) = parse(names)?;
    let grant = app.store.grant(&identity, &vm).await?;
    Ok(Json(grant.ok_or_else(no_grant)?.into()))
}

async fn grant(
    State(app): State<App>,
    Path(names): Path<(String, String)>,
    permitted: Permitted,
    JsonBody(users): JsonBody<Users>,
) -> Result<Json<Permission>, ApiError> {
    let vm_name = names.1.clone();
    let no_vm =
        || ApiError::new(Code::VmNotFound, "there is no such VM").with("vmId", vm_name.as_str());
    let identity = identity_id(&names.0)?;
    let vm = VmId::parse(&names.1).ok_or_else(no_vm)?;
    let users = to_allowed(users.allowed_users.flatten())?;
    permitted
        .operation
        .begin(format!("grant {vm} to {identity} as {}", describe(&users)));
    match app.store.add_grant(&identity, &vm, users).await? {
        GrantOutcome::Granted(grant) => Ok(Json(grant.into())),
        GrantOutcome::AlreadyGranted => {
            let text = "the identity has a grant for this VM: change it, or revoke it first";
            Err(ApiError::new(Code::PermissionExists, text))
        }
        GrantOutcome::Missing if app.store.has_identity(&identity).await? => Err(no_vm()),
        GrantOutcome::Missing => Err(no_identity()),
    }
}

/// Null widens to any user, so it must be said: a body without the field could be a caller's mistake.
async fn update(
    State(app): State<App>,
    Path(names): Path<(String, String)>,
    permitted: Permitted,
    JsonBody(users): JsonBody<Users>,
) -> Result<Json<Permission>, ApiError> {
    let (identity, vm) = parse(names)?;
    let users = users.allowed_users.ok_or_else(|| {
        ApiError::new(
            Code::InvalidParameters,
            "allowedUsers must be a list, or null for any user",
        )
    })?;
    let users = to_allowed(users)?;
    permitted
        .operation
        .begin(format!("change {vm} of {identity} to {}", describe(&users)));
    if !app.store.update_grant(&identity, &vm, &users).await? {
        return Err(no_grant());
    }
    let grant = app.store.grant(&identity, &vm).await?;
    Ok(Json(grant.ok_or_else(no_grant)?.into()))
}

async fn revoke(
    State(app): State<App>,
    Path(names): Path<(String, String)>,
    permitted: Permitted,
) -> Result<Json<Empty>, ApiError> {
    let (identity, vm) = parse(names)?;
    permitted
        .operation
        .begin(format!("revoke {vm} of {identity}"));
    match app.store.delete_grant(&identity, &vm).await? {
        true => Ok(Json(Empty {})),
        false => Err(no_grant()),
    }
}

fn parse((identity, vm): (String, String)) -> Result<(IdentityId, VmId), ApiError> {
    Ok((
        identity_id(&identity)?,
        VmId::parse(&vm).ok_or_else(no_grant)?,
    ))
}

fn no_grant() -> ApiError {
    ApiError::new(
        Code::PermissionNotFound,
        "the identity has no grant for this VM",
    )
}

/// Names need not exist in the guest, and must be names that could.
fn to_allowed(users: Option<Vec<String>>) -> Result<AllowedUsers, ApiError> {
    let Some(users) = users else {
        return Ok(AllowedUsers::Any);
    };
    if users.len() > MAX_USERS {
        return Err(ApiError::new(
            Code::InvalidParameters,
            format!("more than {MAX_USERS} users"),
        ));
    }
    match users
        .iter()
        .find(|user| Username::try_from(user.as_str()).is_err())
    {
        Some(wrong) => {
            let text = format!("allowedUsers: {wrong:?} cannot be a Linux user's name");
            Err(ApiError::new(Code::InvalidParameters, text))
        }
        None => Ok(AllowedUsers::Only(users)),
    }
}

fn describe(users: &AllowedUsers) -> String {
    match users {
        AllowedUsers::Any => "any user".into(),
        AllowedUsers::Only(users) if users.is_empty() => "nobody".into(),
        AllowedUsers::Only(users) => users.join(", "),
    }
}

/// A field that is there, null or not; serde's default is for one that is absent.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Vec<String>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

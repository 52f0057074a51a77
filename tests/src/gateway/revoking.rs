//! What is revoked ends: new requests at once, those under way within 5 s, on every gateway of the database.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Caller, Gateway, World, encode};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    a_revoked_token_cuts_a_running_command: [35],
    a_deleted_identity_cuts_a_running_command: [35],
    a_narrowed_grant_cuts_a_running_command: [35],
    a_revoked_grant_cuts_a_download: [35],
    a_token_with_a_lifetime_dies_by_itself: [35],
];

/// The requirement.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// A token on a gateway with a command that would take an hour, which runs for sure.
pub(super) struct Running {
    pub(super) admin: Caller,
    vm: String,
    identity: String,
    token: String,
    caller: Caller,
    call: tokio::task::JoinHandle<anyhow::Result<super::Answer>>,
}

pub(super) async fn running(world: &World, admin: Caller, at: &Gateway) -> anyhow::Result<Running> {
    let vm = admin.register(world.registration()).await?;
    let identity = admin.identity().await?;
    admin.grant(&identity, &vm, json!(["alice"])).await?;
    let (token, caller) = admin.token(&identity).await?;
    let caller = at.caller(caller.secret())?.user("alice");
    let call = tokio::spawn({
        let (caller, vm) = (caller.clone(), vm.clone());
        async move { caller.exec(&vm, "touch started; sleep 3600.5431").await }
    });
    eventually("the command runs", PATIENCE, async || {
        let started = admin
            .user("alice")
            .exec(&vm, "test -e started")
            .await?
            .ok()?;
        Ok(started["statusCode"] == 0)
    })
    .await?;
    Ok(Running {
        admin,
        vm,
        identity,
        token,
        caller,
        call,
    })
}

impl Running {
    fn identity_path(&self) -> String {
        format!("/identity/v1/identities/{}", self.identity)
    }

    pub(super) fn grant_path(&self) -> String {
        format!("{}/permissions/vm/{}", self.identity_path(), self.vm)
    }

    /// The command's caller is told, and nothing of the command is left in the guest.
    pub(super) async fn must_be_cut(self, refused: u16) -> Outcome {
        let begun = Instant::now();
        let again = self.caller.exec(&self.vm, "id").await?;
        ensure!(again.status == refused, "a new request: {again:?}");
        let answer = tokio::time::timeout(CUT_LIMIT, self.call)
            .await
            .context("it was not cut in time")???;
        ensure!(
            answer.failure() == (401, "UNAUTHORIZED_ERROR"),
            "{answer:?}"
        );
        ensure!(begun.elapsed() <= CUT_LIMIT);
        eventually("the command is gone", PATIENCE, async || {
            let left = self
                .admin
                .user("alice")
                .exec(&self.vm, "pgrep -f '^sleep 3600.5431'")
                .await?
                .ok()?;
            Ok(left["statusCode"] == 1)
        })
        .await
    }
}

async fn a_revoked_token_cuts_a_running_command(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let running = running(world, gateway.admin()?, &gateway).await?;
    let path = format!("{}/tokens/{}", running.identity_path(), running.token);
    running.admin.delete(&path).await?.ok()?;
    running.must_be_cut(401).await
}

async fn a_deleted_identity_cuts_a_running_command(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let running = running(world, gateway.admin()?, &gateway).await?;
    running.admin.delete(&running.identity_path()).await?.ok()?;
    running.must_be_cut(401).await
}

async fn a_narrowed_grant_cuts_a_running_command(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let running = running(world, gateway.admin()?, &gateway).await?;
    running
        .admin
        .put(&running.grant_path(), json!({"allowedUsers": ["bob"]}))
        .await?
        .ok()?;
    running.must_be_cut(403).await
}

async fn a_revoked_grant_cuts_a_download(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let vm = admin.register(world.registration()).await?;
    let identity = admin.identity().await?;
    admin.grant(&identity, &vm, Value::Null).await?;
    let alice = admin.token(&identity).await?.1.user("alice");
    alice.exec(&vm, "truncate -s 1G large").await?.ok()?;
    let raw = format!("/v1/vms/{vm}/raw-files/{}", encode("/home/alice/large"));
    let mut download = alice.request(Method::GET, &raw).send().await?;
    ensure!(download.status().is_success());
    download.chunk().await?.context("the first chunk")?;
    admin
        .delete(&format!(
            "/identity/v1/identities/{identity}/permissions/vm/{vm}"
        ))
        .await?
        .ok()?;
    tokio::time::sleep(CUT_LIMIT).await;
    // Some MiB were under way; the rest never comes, and the end is no orderly one.
    let mut received = 0;
    let end = loop {
        match download.chunk().await {
            Ok(Some(chunk)) => received += chunk.len(),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ensure!(
        end.is_err() && received < 1 << 28,
        "{received} bytes, and then {end:?}"
    );
    Ok(())
}

async fn a_token_with_a_lifetime_dies_by_itself(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let identity = admin.identity().await?;
    let path = format!("/identity/v1/identities/{identity}/tokens");
    let answer = admin
        .post(&path, json!({"expiresInSeconds": 5}))
        .await?
        .ok()?;
    let caller = gateway.caller(super::text(&answer, "token")?)?;
    caller.get("/auth/v1/whoami").await?.ok()?;
    eventually("the token is dead", PATIENCE, async || {
        Ok(caller.get("/auth/v1/whoami").await?.failure() == (401, "UNAUTHORIZED_ERROR"))
    })
    .await
}

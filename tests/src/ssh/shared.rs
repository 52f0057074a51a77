//! Two gateways on one database: what is revoked at one ends at the other.

use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use super::{
    Clients, Scene,
    revoking::{cut, running},
};
use crate::{gateway::World, gateway_cases, runner::Outcome};

gateway_cases![revoking_at_one_gateway_cuts_at_another: [35]];

async fn revoking_at_one_gateway_cuts_at_another(world: &mut World) -> Outcome {
    let mut scene = Scene::new(world, json!(["alice"])).await?;
    let other = world.gateway_with(&["--ssh-listen", "127.0.0.1:0"]).await?;
    scene.clients = Clients::new(world.program(), &other)?;
    let name = scene.name("alice");
    let client = running(&scene, &[], &name).await?;
    let since = Instant::now();
    scene.revoke().await?;
    let refused = scene.clients.ssh(&name, &["true"]).await?;
    ensure!(refused.code == Some(255), "{refused:?}");
    let ended = cut(client, since).await?;
    ensure!(ended.stderr.contains("access was revoked"), "{ended:?}");
    Ok(())
}

//! Who may do what over SSH: every credential, at every VM, as every user, with everything that SSH can ask for, against
//! what the live grants say; and what a refused one does not do.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use russh::ChannelMsg;
use serde_json::{Value, json};

use super::{
    Scene,
    raw::{Raw, finish},
};
use crate::{
    gateway::{Orchestrator, World},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    access_is_what_a_live_grant_says: [34],
    a_grant_that_goes_away_stops_the_next_channel: [35],
    nothing_that_is_refused_wakes_a_vm: [37],
];

/// Root, two with accounts in the guest, and one without.
const USERS: [&str; 4] = ["root", "alice", "bob", "ghost"];

/// Logins at once: each refusal takes its time.
const AT_ONCE: usize = 16;

/// What a connection that has logged in can ask for, and gets or not.
const VERBS: [&str; 4] = ["exec", "shell", "sftp", "forward"];

/// A credential, and what its owner was granted: pairs of a VM and a user, `*` for any.
struct Holder {
    what: &'static str,
    secret: String,
    granted: Vec<(String, &'static str)>,
}

impl Holder {
    fn may(&self, vm: &str, user: &str) -> bool {
        let fits = |(at, who): &(String, &str)| at == vm && (*who == "*" || *who == user);
        self.granted.iter().any(fits)
    }
}

/// Who is there: of each kind that a secret can be, one.
async fn holders(scene: &Scene, vms: [&str; 2]) -> anyhow::Result<Vec<Holder>> {
    let [first, second] = vms.map(str::to_owned);
    let holder = |what, secret: &str, granted| Holder {
        what,
        secret: secret.into(),
        granted,
    };
    let admin = &scene.admin;
    let alice = [(first.clone(), "alice")];
    let anybody = admin.identity().await?;
    admin.grant(&anybody, &first, Value::Null).await?;
    admin.grant(&anybody, &second, json!(["bob"])).await?;
    let anybody = admin.token(&anybody).await?.1;
    let nobody = admin.identity().await?;
    admin.grant(&nobody, &first, json!([])).await?;
    let nobody = admin.token(&nobody).await?.1;
    let stranger = admin.identity().await?;
    let stranger = admin.token(&stranger).await?.1;
    let tokens = format!("{}/tokens", scene.identity_path());
    let (revoked_id, revoked) = admin.token(&scene.identity).await?;
    admin
        .delete(&format!("{tokens}/{revoked_id}"))
        .await?
        .ok()?;
    let all = [(first.clone(), "*"), (second.clone(), "*")];
    let any = [(first, "*"), (second, "bob")];
    Ok(vec![
        holder("a token of alice's", scene.token.secret(), alice.into()),
        holder("a token for anybody", anybody.secret(), any.into()),
        holder("a token for nobody", nobody.secret(), Vec::new()),
        holder("a token without a grant", stranger.secret(), Vec::new()),
        holder("a revoked token", revoked.secret(), Vec::new()),
        holder("the admin key", admin.secret(), all.into()),
        holder("a guess", "gl_guess", Vec::new()),
        holder("nothing", "", Vec::new()),
    ])
}

async fn access_is_what_a_live_grant_says(world: &mut World) -> Outcome {
    let scene = Scene::with(world, json!(["alice"]), &["--ssh-per-source", "1000"]).await?;
    let second = scene.admin.register(world.registration()).await?;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (address, port) = (scene.gateway.ssh()?, server.local_addr()?.port());
    let holders = holders(&scene, [&scene.vm, &second]).await?;
    let vms = [scene.vm.as_str(), &second, "aaaaaaaaaaaaaaaaaaaa", ""];
    let mut tries = Vec::new();
    for holder in &holders {
        for vm in vms {
            tries.extend(USERS.map(|user| (holder, vm, user)));
        }
    }
    let tried = stream::iter(tries).map(|(holder, vm, user)| async move {
        let used = used(address, vm, user, &holder.secret, port).await;
        let used = used.with_context(|| format!("{} at {vm:?} as {user}", holder.what))?;
        let expected = match (holder.may(vm, user), user) {
            (false, _) => None,
            // The grant says yes, and the guest has nobody of that name.
            (true, "ghost") => Some(BTreeSet::new()),
            (true, _) => Some(BTreeSet::from(VERBS)),
        };
        ensure!(
            used == expected,
            "{} at {vm:?} as {user}: {used:?} instead of {expected:?}",
            holder.what
        );
        Ok(())
    });
    tried
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// What works over a connection of its own. `None`: there was no login.
async fn used(
    address: SocketAddr,
    vm: &str,
    user: &str,
    secret: &str,
    port: u16,
) -> anyhow::Result<Option<BTreeSet<&'static str>>> {
    let mut raw = Raw::connect(address).await?;
    let name = format!("{vm}+{user}:{secret}");
    if !raw.0.authenticate_none(name).await?.success() {
        return Ok(None);
    }
    let mut works = BTreeSet::new();
    for verb in VERBS {
        if works_here(&raw, verb, user, port).await? {
            works.insert(verb);
        }
    }
    Ok(Some(works))
}

async fn works_here(raw: &Raw, verb: &str, user: &str, port: u16) -> anyhow::Result<bool> {
    if verb == "forward" {
        let host = "127.0.0.1";
        let opened = raw.0.channel_open_direct_tcpip(host, port.into(), host, 1);
        return Ok(opened.await.is_ok());
    }
    let mut channel = raw.session().await?;
    match verb {
        "exec" => channel.exec(true, "id -un").await?,
        "shell" => {
            channel.request_shell(true).await?;
            channel.data(&b"id -un\nexit\n"[..]).await?;
        }
        _ => {
            channel.request_subsystem(true, "sftp").await?;
            // SSH_FXP_INIT of version 3, which is answered by ours.
            channel.data(&[0, 0, 0, 5, 1, 0, 0, 0, 3][..]).await?;
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => return Ok(data.get(4) == Some(&2)),
                    ChannelMsg::ExitStatus { .. } => return Ok(false),
                    _ => {}
                }
            }
            return Ok(false);
        }
    }
    Ok(finish(channel).await.stdout == format!("{user}\n"))
}

async fn a_grant_that_goes_away_stops_the_next_channel(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let address = scene.gateway.ssh()?;
    let raw = Raw::log_in(address, &scene.name("alice")).await?;
    ensure!(works_here(&raw, "exec", "alice", 0).await?);
    scene.regrant(json!(["bob"])).await?;
    for verb in VERBS {
        // Cut already, or refused.
        let works = works_here(&raw, verb, "alice", 1).await;
        ensure!(!works.unwrap_or(false), "{verb} still works");
    }
    ensure!(Raw::log_in(address, &scene.name("alice")).await.is_err());
    let raw = Raw::log_in(address, &scene.name("bob")).await?;
    ensure!(works_here(&raw, "exec", "bob", 0).await?);
    Ok(())
}

async fn nothing_that_is_refused_wakes_a_vm(world: &mut World) -> Outcome {
    let scene = Scene::with(world, json!(["alice"]), &["--ssh-per-source", "1000"]).await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let mut registration = world.registration();
    registration["state"] = json!("suspended");
    registration["hooks"] = json!({"start": orchestrator.url("start")});
    let vm = scene.admin.register(registration).await?;
    let grants = format!("{}/permissions/vm/{vm}", scene.identity_path());
    let (address, secret) = (scene.gateway.ssh()?, scene.token.secret());
    let holders = holders(&scene, [&vm, &scene.vm]).await?;
    let refused = holders
        .iter()
        .flat_map(|holder| USERS.map(|user| (holder, user)))
        .filter(|(holder, user)| !holder.may(&vm, user) || holder.secret == secret);
    // Before the grant, the scene's own token is a stranger's here.
    let tried = stream::iter(refused).map(|(holder, user)| {
        let vm = vm.as_str();
        async move {
            let used = used(address, vm, user, &holder.secret, 1).await?;
            ensure!(used.is_none(), "{} as {user}: {used:?}", holder.what);
            Ok(())
        }
    });
    tried
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    ensure!(orchestrator.count("start") == 0, "it was woken");
    let users = json!({"allowedUsers": ["alice"]});
    scene.admin.post(&grants, users).await?.ok()?;
    let raw = Raw::log_in(address, &format!("{vm}+alice:{secret}")).await?;
    ensure!(orchestrator.count("start") == 0, "a login alone woke it");
    ensure!(works_here(&raw, "exec", "alice", 0).await?);
    ensure!(orchestrator.count("start") == 1);
    Ok(())
}

//! Who may do what: each credential on each route, on granted, ungranted and unknown VMs, as each user, held against the
//! rule, which is written a second time here. The routes are those of the gateway's own description, which is made from the
//! table that routes them: one that is added is the admin's alone until it is named here.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Caller, Gateway, Orchestrator, World, sleeping::registration, text, unlike};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    no_route_answers_without_a_live_credential: [34],
    each_route_lets_a_token_do_what_its_grants_say_and_no_more: [34, 37],
    the_admin_is_kept_from_nothing: [34],
    an_unknown_vm_and_an_ungranted_one_look_the_same: [37],
];

/// Without a credential. A new entry is a decision.
const PUBLIC: [&str; 3] = ["GET /health", "GET /openapi.json", "GET /ready"];

/// For whoever has a credential, about what is theirs.
const OWN: [&str; 2] = ["GET /auth/v1/whoami", "GET /v1/vms"];

/// For whoever was granted the VM as anybody.
const OF_A_VM: [&str; 2] = ["GET /v1/vms/{vm_id}", "POST /v1/vms/{vm_id}/start"];

/// For whoever was granted the VM as the Linux user of the request.
const AS_A_USER: [&str; 24] = [
    "GET /v1/vms/{vm_id}/exec",
    "POST /v1/vms/{vm_id}/exec-await",
    "GET /v1/vms/{vm_id}/files/",
    "GET /v1/vms/{vm_id}/files/{filepath}",
    "PUT /v1/vms/{vm_id}/files/{filepath}",
    "GET /v1/vms/{vm_id}/raw-files/{filepath}",
    "PUT /v1/vms/{vm_id}/raw-files/{filepath}",
    "POST /v1/vms/{vm_id}/watch-files",
    "GET /v1/vms/{vm_id}/systemd/services",
    "POST /v1/vms/{vm_id}/systemd/services",
    "DELETE /v1/vms/{vm_id}/systemd/services/{service_id}",
    "GET /v1/vms/{vm_id}/systemd/services/{service_id}/logs",
    "GET /v1/vms/{vm_id}/systemd/services/{service_id}/status",
    "POST /v1/vms/{vm_id}/systemd/restart",
    "POST /v1/vms/{vm_id}/systemd/start",
    "POST /v1/vms/{vm_id}/systemd/stop",
    "GET /v1/vms/{vm_id}/terminals",
    "POST /v1/vms/{vm_id}/terminals",
    "GET /v1/vms/{vm_id}/terminals/{terminal_id}",
    "DELETE /v1/vms/{vm_id}/terminals/{terminal_id}",
    "POST /v1/vms/{vm_id}/terminals/{terminal_id}/input",
    "GET /v1/vms/{vm_id}/terminals/{terminal_id}/logs",
    "POST /v1/vms/{vm_id}/terminals/{terminal_id}/resize",
    "GET /v1/vms/{vm_id}/terminals/{terminal_id}/xterm-256color",
];

/// Of the right form, and nobody's.
const UNKNOWN_VM: &str = "zzzzzzzzzzzzzzzzzzzz";

/// A method and a path with placeholders.
struct Route(String);

impl Route {
    fn is_one_of(&self, routes: &[&str]) -> bool {
        routes.contains(&self.0.as_str())
    }

    fn names_vm(&self) -> bool {
        self.0.contains(" /v1/vms/{vm_id}")
    }

    async fn ask(&self, caller: &Caller, vm: &str) -> anyhow::Result<Answer> {
        let (method, path) = self.0.split_once(' ').context("a method and a path")?;
        let path = path.replace("{vm_id}", vm).replace(['{', '}'], "");
        let method: Method = method.parse()?;
        caller.ask(method, &path, Some(json!({}))).await
    }
}

async fn routes(gateway: &Gateway) -> anyhow::Result<Vec<Route>> {
    let document = gateway.caller("")?.get("/openapi.json").await?.ok()?;
    let paths = document["paths"].as_object().context("no paths")?;
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, _)| Route(format!("{} {path}", method.to_uppercase())))
    });
    let routes: Vec<Route> = routes.collect();
    for named in [&PUBLIC[..], &OWN, &OF_A_VM, &AS_A_USER].concat() {
        let found = routes.iter().any(|route| route.0 == named);
        ensure!(found, "there is no {named} any more");
    }
    Ok(routes)
}

fn is_refused(answer: &Answer) -> bool {
    let (_, code) = answer.failure();
    code == "FORBIDDEN" || code == "VM_ACCESS_DENIED"
}

async fn no_route_answers_without_a_live_credential(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, live) = world.granted(&gateway, Value::Null).await?;
    let admin = gateway.admin()?;
    let (revoked_of, deleted) = (admin.identity().await?, admin.identity().await?);
    for identity in [&revoked_of, &deleted] {
        admin.grant(identity, &vm, Value::Null).await?;
    }
    let tokens = format!("/identity/v1/identities/{revoked_of}/tokens");
    let (id, revoked) = admin.token(&revoked_of).await?;
    admin.delete(&format!("{tokens}/{id}")).await?.ok()?;
    let orphaned = admin.token(&deleted).await?.1;
    let deleted = format!("/identity/v1/identities/{deleted}");
    admin.delete(&deleted).await?.ok()?;
    let short = admin.post(&tokens, json!({"expiresInSeconds": 1})).await?;
    let expired = gateway.caller(text(&short.ok()?, "token")?)?;
    eventually("it has expired", PATIENCE, async || {
        Ok(expired.get("/auth/v1/whoami").await?.status == StatusCode::UNAUTHORIZED)
    })
    .await?;
    let callers = [
        gateway.caller("")?,
        gateway.caller(&unlike(live.secret()))?,
        revoked,
        orphaned,
        expired,
    ];
    for route in routes(&gateway).await? {
        for caller in &callers {
            let answer = route.ask(caller, &vm).await?;
            if route.is_one_of(&PUBLIC) {
                ensure!(answer.status == StatusCode::OK, "{}: {answer:?}", route.0);
            } else {
                let expected = (401, "UNAUTHORIZED_ERROR");
                ensure!(answer.failure() == expected, "{}: {answer:?}", route.0);
            }
        }
    }
    for path in ["/", "/v1", "/v1/vms/x/y/z", "/identity/v2"] {
        let answer = gateway.caller("")?.get(path).await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{path}");
    }
    // That the requests were as they should be: with a live credential, none of them is turned away so.
    for route in routes(&gateway).await? {
        let answer = route.ask(&live, UNKNOWN_VM).await?;
        ensure!(answer.status != StatusCode::UNAUTHORIZED, "{}", route.0);
    }
    Ok(())
}

async fn each_route_lets_a_token_do_what_its_grants_say_and_no_more(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let identity = admin.identity().await?;
    let token = admin.token(&identity).await?.1;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let mut vms: Vec<(String, &[&str])> = Vec::new();
    for (allowed, users) in [
        (Some(Value::Null), &["alice", "bob", "root"][..]),
        (Some(json!(["alice"])), &["alice"]),
        (Some(json!(["root", "bob"])), &["bob", "root"]),
        (Some(json!([])), &[]),
        (None, &[]),
    ] {
        // They sleep. Those that nobody may use have hooks, which tell whether somebody woke them.
        let registration = match users {
            [] => registration(world, &orchestrator, "stopped"),
            _ => json!({"endpoint": "unix:/nonexistent/agent.sock", "state": "stopped"}),
        };
        let vm = admin.register(registration).await?;
        if let Some(allowed) = allowed {
            admin.grant(&identity, &vm, allowed).await?;
        }
        vms.push((vm, users));
    }
    vms.extend([(UNKNOWN_VM.into(), &[][..]), ("x".into(), &[])]);
    for route in routes(&gateway).await? {
        let vms = if route.names_vm() {
            &vms[..]
        } else {
            &vms[..1]
        };
        for (vm, users) in vms {
            for user in ["alice", "bob", "root"] {
                let caller = match user {
                    // As the SDK does it: without the header.
                    "root" => token.clone(),
                    user => token.user(user),
                };
                let answer = route.ask(&caller, vm).await?;
                let allowed = route.is_one_of(&PUBLIC)
                    || route.is_one_of(&OWN)
                    || (route.is_one_of(&OF_A_VM) && !users.is_empty())
                    || (route.is_one_of(&AS_A_USER) && users.contains(&user));
                ensure!(
                    is_refused(&answer) != allowed && answer.status != StatusCode::UNAUTHORIZED,
                    "{} of a VM for {users:?} as {user}: {answer:?}",
                    route.0
                );
                ensure!(
                    allowed || answer.status == StatusCode::FORBIDDEN,
                    "{answer:?}"
                );
            }
        }
    }
    for action in ["start", "stop", "suspend", "delete"] {
        ensure!(
            orchestrator.count(action) == 0,
            "a refused request: {action}"
        );
    }
    Ok(())
}

async fn the_admin_is_kept_from_nothing(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    for route in routes(&gateway).await? {
        let answer = route.ask(&admin.user("alice"), UNKNOWN_VM).await?;
        ensure!(
            !is_refused(&answer) && answer.status != StatusCode::UNAUTHORIZED,
            "{}: {answer:?}",
            route.0
        );
        let missing = answer.failure() == (404, "VM_NOT_FOUND");
        ensure!(!route.names_vm() || missing, "{}: {answer:?}", route.0);
    }
    Ok(())
}

async fn an_unknown_vm_and_an_ungranted_one_look_the_same(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (_, token) = world.granted(&gateway, Value::Null).await?;
    let ungranted = gateway.admin()?.register(world.registration()).await?;
    for route in routes(&gateway).await? {
        if !route.names_vm() {
            continue;
        }
        let known = route.ask(&token, &ungranted).await?;
        for unknown in [UNKNOWN_VM, "x", "%00%ff"] {
            let answer = route.ask(&token, unknown).await?;
            ensure!(answer == known, "{}: {answer:?}, {known:?}", route.0);
        }
    }
    Ok(())
}

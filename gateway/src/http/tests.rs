//! The router's own table, walked: no route answers without a credential, and none goes beyond what a token may.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{App, Limits, Parts, Settings, routes, table::Route};
use crate::{
    audit::{Audit, Event, LogFile, Logged},
    ids::{IdentityId, VmId},
    machines::Machines,
    metrics::Metrics,
    sessions::{Holder, LiveSessions, Reach, Secret, Sessions},
    store::{AllowedUsers, GrantOutcome, Hooks, Location, Store, VmState},
};

/// What answers without a credential. A new entry is a decision.
const PUBLIC: [&str; 3] = ["/health", "/openapi.json", "/ready"];

/// A gateway without a socket, on a SQLite database of its own.
struct Gateway {
    app: App,
    key: Secret,
    events: Arc<tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Logged>>>,
    _folder: tempfile::TempDir,
}

impl Gateway {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Location::Sqlite(folder.path().join("gateway.db")))
            .await
            .unwrap();
        let key = Secret::new_key();
        let Holder::AdminKey(id) = key.holder() else {
            panic!("no key")
        };
        store.add_key(id, &key.hash()).await.unwrap();
        let log = LogFile::open(folder.path().join("audit.jsonl")).unwrap();
        let metrics = Metrics::new();
        let (audit, events) = Audit::new(log, metrics.clone());
        let wake_limit = Duration::from_secs(1);
        let app = App::new(Parts {
            store: store.clone(),
            sessions: Sessions::new(store.clone()),
            live: LiveSessions::default(),
            machines: Machines::new(store, None, metrics.clone(), wake_limit).unwrap(),
            audit,
            metrics,
            limits: Limits::new(None, None),
            settings: Settings {
                max_file: 1024,
                max_output: 1024,
                idle_timeout: Duration::from_secs(300),
                behind_proxy: false,
            },
        });
        let events = Arc::new(tokio::sync::Mutex::new(events));
        Self {
            app,
            key,
            events,
            _folder: folder,
        }
    }

    async fn token(&self, identity: &IdentityId) -> Secret {
        let secret = Secret::new_token();
        let Holder::Token(id) = secret.holder() else {
            panic!("no token")
        };
        assert!(
            self.app
                .store
                .add_token(identity, id, &secret.hash(), None)
                .await
                .unwrap()
        );
        secret
    }

    /// A machine that sleeps, and that nothing can wake: a request that tries is seen by its answer.
    async fn vm(&self) -> VmId {
        let endpoint = "unix:/nonexistent/agent.sock".parse().unwrap();
        let made = self
            .app
            .machines
            .register(
                endpoint,
                Hooks::default(),
                None,
                VmState::Stopped,
                None,
                None,
            )
            .await;
        made.unwrap().id
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = super::router(self.app.clone())
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

fn request(method: &Method, path: &str, secret: Option<&str>, user: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    if let Some(user) = user {
        request = request.header("x-freestyle-vm-linux-user-id", user);
    }
    request.body(Body::from("{}")).unwrap()
}

fn path_of(route: &Route, vm: &VmId) -> String {
    let path = route.path.replace("{vm_id}", vm.as_str());
    path.replace(['{', '}'], "")
}

fn all_routes(gateway: &Gateway) -> Vec<Route> {
    routes(gateway.app.clone()).0
}

#[tokio::test]
async fn no_route_answers_without_a_credential() {
    let gateway = Gateway::new().await;
    let vm = gateway.vm().await;
    let typo = "gl_aaaaaaaaaaaaaaaaaaaa_0000000000000000000000000000000000000000000000000";
    let never_stored = Secret::new_token();
    let never_stored_key = Secret::new_key();
    let mut public = Vec::new();
    for route in all_routes(&gateway) {
        let path = path_of(&route, &vm);
        for secret in [
            None,
            Some(""),
            Some(typo),
            Some(never_stored.reveal()),
            Some(never_stored_key.reveal()),
        ] {
            let (status, body) = gateway
                .ask(request(&route.method, &path, secret, None))
                .await;
            if route.verb.is_none() {
                assert_eq!(status, StatusCode::OK, "{path}");
                public.push(route.path);
                break;
            }
            let code = body["code"].as_str();
            assert_eq!(
                (status, code),
                (StatusCode::UNAUTHORIZED, Some("UNAUTHORIZED_ERROR")),
                "{} {path}",
                route.method
            );
        }
    }
    public.sort_unstable();
    assert_eq!(public, PUBLIC);
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/nowhere"),
        (Method::PATCH, "/v1/vms"),
        (Method::PUT, "/v1/vms/x/"),
    ] {
        let (status, _) = gateway.ask(request(&method, path, None, None)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        let (status, body) = gateway
            .ask(request(&method, path, Some(gateway.key.reveal()), None))
            .await;
        assert!(
            status.is_client_error() && body["code"].is_string(),
            "{method} {path}: {status} {body}"
        );
    }
}

#[tokio::test]
async fn each_route_lets_a_token_do_what_its_grant_says_and_no_more() {
    let gateway = Gateway::new().await;
    let (vm, ungranted) = (gateway.vm().await, gateway.vm().await);
    let identity = gateway.app.store.create_identity().await.unwrap();
    let token = gateway.token(&identity).await;
    let users = AllowedUsers::Only(vec!["alice".into()]);
    let given = gateway
        .app
        .store
        .add_grant(&identity, &vm, users)
        .await
        .unwrap();
    assert!(matches!(given, GrantOutcome::Granted(_)));
    for route in all_routes(&gateway) {
        let Some(verb) = route.verb else { continue };
        for (target, user) in [
            (&vm, "alice"),
            (&vm, "bob"),
            (&vm, "root"),
            (&ungranted, "alice"),
            (&VmId::random(), "alice"),
        ] {
            let granted = target == &vm;
            let allowed = match verb.reach() {
                Reach::Own => true,
                Reach::Admin => false,
                Reach::Vm => granted,
                Reach::VmAsUser => granted && user == "alice",
            };
            let path = path_of(&route, target);
            let (status, body) = gateway
                .ask(request(
                    &route.method,
                    &path,
                    Some(token.reveal()),
                    Some(user),
                ))
                .await;
            let refused = matches!(
                body["code"].as_str(),
                Some("FORBIDDEN" | "VM_ACCESS_DENIED")
            );
            assert_eq!(
                !refused, allowed,
                "{} {path} as {user}: {status} {body}",
                route.method
            );
            assert!(
                allowed || status == StatusCode::FORBIDDEN,
                "{} {path}: {status}",
                route.method
            );
        }
    }
    let untouched = gateway.app.store.vm(&ungranted).await.unwrap().unwrap();
    assert_eq!(untouched.state, VmState::Stopped);
}

#[tokio::test]
async fn an_unknown_vm_and_an_ungranted_one_look_the_same() {
    let gateway = Gateway::new().await;
    let ungranted = gateway.vm().await;
    let identity = gateway.app.store.create_identity().await.unwrap();
    let token = gateway.token(&identity).await;
    let ask = |vm: String| {
        request(
            &Method::POST,
            &format!("/v1/vms/{vm}/exec-await"),
            Some(token.reveal()),
            None,
        )
    };
    let known = gateway.ask(ask(ungranted.to_string())).await;
    for unknown in [VmId::random().to_string(), "x".into(), "%00%ff".into()] {
        assert_eq!(gateway.ask(ask(unknown)).await, known);
    }
    assert_eq!(known.1["code"], "VM_ACCESS_DENIED");
    let admin = request(
        &Method::GET,
        &format!("/v1/vms/{}", VmId::random()),
        Some(gateway.key.reveal()),
        None,
    );
    assert_eq!(gateway.ask(admin).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_credential_of_a_deleted_identity_or_a_revoked_token_is_none() {
    let gateway = Gateway::new().await;
    let store = &gateway.app.store;
    let identity = store.create_identity().await.unwrap();
    let (revoked, orphaned) = (
        gateway.token(&identity).await,
        gateway.token(&identity).await,
    );
    let whoami =
        |secret: &Secret| request(&Method::GET, "/auth/v1/whoami", Some(secret.reveal()), None);
    let (status, body) = gateway.ask(whoami(&revoked)).await;
    assert_eq!(
        (status, body["identityId"].as_str()),
        (StatusCode::OK, Some(identity.as_str()))
    );
    let Holder::Token(id) = revoked.holder() else {
        panic!("no token")
    };
    store.delete_token(&identity, id).await.unwrap();
    assert_eq!(
        gateway.ask(whoami(&revoked)).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(gateway.ask(whoami(&orphaned)).await.0, StatusCode::OK);
    store.delete_identity(&identity).await.unwrap();
    assert_eq!(
        gateway.ask(whoami(&orphaned)).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn the_sdks_token_header_is_a_credential_too() {
    let gateway = Gateway::new().await;
    let identity = gateway.app.store.create_identity().await.unwrap();
    let token = gateway.token(&identity).await;
    let request =
        Request::get("/auth/v1/whoami").header("x-freestyle-identity-access-token", token.reveal());
    assert_eq!(
        gateway.ask(request.body(Body::empty()).unwrap()).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn bad_bodies_and_headers_are_clear_errors_of_the_contract() {
    let gateway = Gateway::new().await;
    let vm = gateway.vm().await;
    let exec = format!("/v1/vms/{vm}/exec-await");
    let post = |path: &str, body: Vec<u8>| {
        let request =
            Request::post(path).header("authorization", format!("Bearer {}", gateway.key.reveal()));
        request.body(Body::from(body)).unwrap()
    };
    for body in [
        b"not json".to_vec(),
        b"[]".to_vec(),
        br#"{"command": 1}"#.to_vec(),
        b"\xff".to_vec(),
        vec![b' '; 2 << 20],
    ] {
        let (status, answer) = gateway.ask(post(&exec, body)).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST"))
        );
    }
    for user in ["", "a b", "a/b", "a:b"] {
        let (status, answer) = gateway
            .ask(request(
                &Method::GET,
                &format!("/v1/vms/{vm}/files/x"),
                Some(gateway.key.reveal()),
                Some(user),
            ))
            .await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!("VALIDATION_ERROR")),
            "{user:?}"
        );
    }
    let (status, answer) = gateway
        .ask(post(
            &exec,
            br#"{"command": "true", "terminal": "x", "timeoutMs": null}"#.to_vec(),
        ))
        .await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST"))
    );
}

#[tokio::test]
async fn absent_allowed_users_never_widen_a_grant() {
    let gateway = Gateway::new().await;
    let vm = gateway.vm().await;
    let identity = gateway.app.store.create_identity().await.unwrap();
    let path = format!("/identity/v1/identities/{identity}/permissions/vm/{vm}");
    let ask = |method: Method, body: Value| {
        let request = Request::builder().method(method).uri(&path);
        let request = request.header("authorization", format!("Bearer {}", gateway.key.reveal()));
        request.body(Body::from(body.to_string())).unwrap()
    };
    let (status, grant) = gateway
        .ask(ask(Method::POST, json!({"allowedUsers": ["alice"]})))
        .await;
    assert_eq!(
        (status, &grant["allowedUsers"]),
        (StatusCode::OK, &json!(["alice"]))
    );
    let (status, body) = gateway.ask(ask(Method::PUT, json!({}))).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_PARAMETERS"))
    );
    let (_, body) = gateway.ask(ask(Method::POST, json!({}))).await;
    assert_eq!(body["code"], "PERMISSION_ALREADY_EXISTS");
    let (_, grant) = gateway.ask(ask(Method::GET, json!({}))).await;
    assert_eq!(grant["allowedUsers"], json!(["alice"]));
    let (_, grant) = gateway
        .ask(ask(Method::PUT, json!({"allowedUsers": null})))
        .await;
    assert_eq!(grant["allowedUsers"], Value::Null);
    let (_, grant) = gateway
        .ask(ask(Method::PUT, json!({"allowedUsers": []})))
        .await;
    assert_eq!(grant["allowedUsers"], json!([]));
}

#[tokio::test]
async fn the_description_has_every_route_and_each_schema_that_it_names() {
    let gateway = Gateway::new().await;
    let (status, document) = gateway
        .ask(Request::get("/openapi.json").body(Body::empty()).unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
    let mut described = 0;
    for route in all_routes(&gateway) {
        let method = route.method.as_str().to_lowercase();
        let operation = &document["paths"][route.path][&method];
        assert!(operation.is_object(), "{method} {}", route.path);
        assert_eq!(
            operation["security"].is_array(),
            route.verb.is_some(),
            "{method} {}",
            route.path
        );
        described += 1;
    }
    let operations = document["paths"].as_object().unwrap().values();
    assert_eq!(
        operations
            .map(|path| path.as_object().unwrap().len())
            .sum::<usize>(),
        described
    );
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name} is named and not described"
        );
    }
}

#[tokio::test]
async fn the_log_has_one_start_and_one_end_of_each_operation_and_no_secret() {
    let gateway = Gateway::new().await;
    let vm = gateway.vm().await;
    let identity = gateway.app.store.create_identity().await.unwrap();
    let token = gateway.token(&identity).await;
    let path = format!("/v1/vms/{vm}/files/%2Fetc%2Fpasswd");
    gateway
        .ask(request(
            &Method::GET,
            &path,
            Some(gateway.key.reveal()),
            Some("alice"),
        ))
        .await;
    gateway
        .ask(request(
            &Method::GET,
            &path,
            Some(token.reveal()),
            Some("alice"),
        ))
        .await;
    gateway.ask(request(&Method::GET, &path, None, None)).await;
    let mut events = gateway.events.lock().await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event.event());
    }
    let told: Vec<(&str, Option<&str>, Option<&str>)> = seen
        .iter()
        .map(|event| {
            (
                event.phase.as_str(),
                event.subject.as_deref(),
                event.end.as_ref().map(|end| end.result.as_str()),
            )
        })
        .collect();
    let path = Some("/etc/passwd");
    let expected = [
        ("start", path, None),
        ("end", path, Some("UNIMPLEMENTED")),
        ("start", None, None),
        ("end", None, Some("VM_ACCESS_DENIED")),
    ];
    assert_eq!(told, expected);
    let text: String = seen.iter().map(Event::to_json).collect();
    assert!(text.contains("read-file") && text.contains("alice") && text.contains(vm.as_str()));
    for secret in [&gateway.key, &token] {
        assert!(!text.contains(secret.reveal()) && !text.contains(&secret.hash().to_hex()));
    }
}

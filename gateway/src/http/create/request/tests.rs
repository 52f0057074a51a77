//! Which request makes which plan, and which none.

use super::*;
use serde_json::json;

fn plan(body: Value) -> Result<Plan, Code> {
    let request: CreateVm = serde_json::from_value(body).unwrap();
    request
        .plan(Duration::from_secs(300))
        .map_err(|error| error.code())
}

#[test]
fn an_empty_request_is_a_plan_with_the_defaults() {
    let plan = plan(json!({})).unwrap();
    assert_eq!(plan.idle_timeout, Some(Duration::from_secs(300)));
    assert!(plan.needs_no_guest());
}

#[test]
fn null_is_never_idle_and_unknown_fields_are_ignored() {
    let plan = plan(json!({"idleTimeoutSeconds": null, "name": "x", "template": {"aptDeps": []}}))
        .unwrap();
    assert_eq!(plan.idle_timeout, None);
}

#[test]
fn users_and_files_inside_the_template_count_too() {
    let plan = plan(json!({
        "users": [{"name": "bob", "uid": 2000}],
        "template": {
            "users": [{"name": "alice"}],
            "additionalFiles": {"/x": {"content": "aGk=", "encoding": "base64", "executable": true}},
        },
    }))
    .unwrap();
    assert_eq!(plan.plain_users(), ["alice"]);
    assert_eq!(
        plan.other_users()
            .map(|user| user.name.as_str())
            .collect::<Vec<_>>(),
        ["bob"]
    );
    assert_eq!(
        (plan.files[0].content.as_slice(), plan.files[0].executable),
        (&b"hi"[..], true)
    );
}

#[test]
fn services_and_packages_are_planned_in_their_order() {
    let once = json!({"name": "a", "mode": "oneshot", "exec": ["x"], "deleteAfterSuccess": true});
    let plan = plan(json!({
        "template": {
            "systemd": {"services": [once]},
            "aptDeps": ["git"],
            "vcpuCount": 4,
            "rootfsSizeGb": 30,
        },
        "systemd": {"services": [{"name": "b", "mode": "service", "exec": ["y"]}]},
        "readySignalTimeoutSeconds": 7,
        "persistence": {"type": "sticky", "priority": 3},
    }))
    .unwrap();
    let services: Vec<(&str, bool)> = plan
        .services
        .iter()
        .map(|service| (service.unit.name.as_str(), service.once))
        .collect();
    assert_eq!(services, [("a", true), ("b", false)]);
    assert_eq!(
        (plan.packages.as_slice(), plan.cpus, plan.disk_gib),
        (&["git".to_owned()][..], Some(4), Some(30))
    );
    assert_eq!(plan.ready_limit, Some(Duration::from_secs(7)));
}

#[test]
fn an_ephemeral_machine_is_kept_until_it_would_sleep_or_stops() {
    let kept = |persistence: Value| plan(json!({"persistence": persistence}));
    for (persistence, until) in [
        (json!(null), None),
        (json!({"type": "persistent"}), None),
        (json!({"type": "ephemeral"}), Some(KeptUntil::Suspended)),
        (
            json!({"type": "ephemeral", "deleteEvent": "OnStop"}),
            Some(KeptUntil::Stopped),
        ),
    ] {
        assert_eq!(kept(persistence).unwrap().kept_until, until);
    }
    for wrong in [
        json!({"type": "eternal"}),
        json!({"type": "ephemeral", "deleteEvent": "never"}),
    ] {
        assert_eq!(kept(wrong).unwrap_err(), Code::CreateBadRequest);
    }
}

#[test]
fn what_is_wrong_has_the_contracts_code() {
    let user = |user: Value| plan(json!({"users": [user]})).unwrap_err();
    assert_eq!(user(json!({"name": "Eve"})), Code::ValidationError);
    assert_eq!(user(json!({"name": "root"})), Code::ValidationError);
    assert_eq!(
        user(json!({"name": "eve", "uid": 70000})),
        Code::UserUidOutOfRange
    );
    assert_eq!(
        user(json!({"name": "eve", "home": "x"})),
        Code::UserHomeInvalid
    );
    assert_eq!(
        user(json!({"name": "eve", "shell": "sh"})),
        Code::UserShellInvalid
    );
    assert_eq!(
        user(json!({"name": "eve", "groups": [""]})),
        Code::UserGroupEmpty
    );
    let twice = json!({"users": [{"name": "eve"}, {"name": "eve"}]});
    assert_eq!(plan(twice).unwrap_err(), Code::DuplicateUserName);
    let group = |name: &str| plan(json!({"groups": [{"name": name}]})).unwrap_err();
    assert_eq!(group(""), Code::GroupNameEmpty);
    assert_eq!(group("root"), Code::GroupNameReserved);
    assert_eq!(group("A b"), Code::GroupNameInvalidChars);
    assert_eq!(group(&"x".repeat(33)), Code::GroupNameTooLong);
    assert_eq!(
        user(json!({"name": "eve", "system": true, "uid": 1000})),
        Code::UserSystemFlagMismatch
    );
    for idle in [0, u64::MAX] {
        assert_eq!(
            plan(json!({"idleTimeoutSeconds": idle})).unwrap_err(),
            Code::InvalidParameters
        );
    }
    assert_eq!(
        plan(json!({"workdir": "x"})).unwrap_err(),
        Code::CreateBadRequest
    );
    for size in [json!({"memSizeGb": 0}), json!({"rootfsSizeGb": 1})] {
        assert_eq!(plan(size).unwrap_err(), Code::CreateBadRequest);
    }
}

#[test]
fn what_is_not_built_is_refused_and_not_passed_over() {
    for body in [
        json!({"snapshotId": "sc-x"}),
        json!({"systemd": {"patchedServices": [{"name": "x"}]}}),
        json!({"ports": [{"port": 443, "targetPort": 3000}]}),
        json!({"domains": [{"domain": "example.org"}]}),
    ] {
        assert_eq!(
            plan(body.clone()).unwrap_err(),
            Code::Unimplemented,
            "{body}"
        );
    }
}

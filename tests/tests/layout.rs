//! Who knows whom: the arrows of docs/architecture.md, held by looking at the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

/// All Rust files below a folder, with their text less comments and tests: a test may name what it expects.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("a folder of the workspace")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                let code = code.collect::<Vec<_>>().join("\n");
                let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                found.push((path, code.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn assert_nowhere(folder: &str, except: &[&str], words: &[&str]) {
    for (path, code) in sources(folder) {
        let shown = path
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        if except.iter().any(|allowed| shown.starts_with(allowed)) {
            continue;
        }
        for word in words {
            assert!(!code.contains(word), "{shown} must not know {word:?}");
        }
    }
}

#[test]
fn grpc_is_named_in_worker_and_rpc_alone() {
    let allowed = ["agent/src/worker", "agent/src/rpc"];
    assert_nowhere(
        "agent/src",
        &allowed,
        &["tonic::", "tonic_", "prost::", "prost_"],
    );
    for folder in ["machine/src", "archive/src"] {
        assert_nowhere(folder, &[], &["tonic", "prost", "guestline_proto"]);
    }
    assert_nowhere("gateway/src", &[], &["tonic", "prost"]);
}

#[test]
fn the_gateways_parts_know_each_other_downwards() {
    assert_nowhere(
        "gateway/src/sessions",
        &[],
        &["crate::http", "crate::machines", "sqlx::", "axum::"],
    );
    assert_nowhere(
        "gateway/src/store",
        &[],
        &["crate::http", "crate::machines", "axum::"],
    );
    assert_nowhere(
        "gateway/src/machines",
        &[],
        &["crate::http", "sqlx::", "axum::"],
    );
    assert_nowhere("gateway/src", &["gateway/src/store"], &["sqlx::"]);
    assert_nowhere(
        "gateway/src",
        &["gateway/src/http"],
        &["axum::", "StatusCode"],
    );
    // Only in the table of errors is a code given its HTTP status.
    assert_nowhere(
        "gateway/src/http",
        &[
            "gateway/src/http/error.rs",
            "gateway/src/http/tests.rs",
            "gateway/src/http/public.rs",
            "gateway/src/http/transfer.rs",
        ],
        &["StatusCode"],
    );
}

#[test]
fn unsafe_is_in_sys_alone() {
    for folder in [
        "agent/src",
        "archive/src",
        "gateway/src",
        "host-client/src",
        "machine/src",
        "xtask/src",
        "tests/src",
        "proto",
    ] {
        assert_nowhere(
            folder,
            &["agent/src/sys"],
            &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        );
    }
}

#[test]
fn the_agents_domains_know_neither_rpc_nor_listener_nor_worker() {
    for domain in ["files", "processes", "system", "network", "session", "sys"] {
        let upward = ["crate::rpc", "crate::listener", "crate::worker"];
        assert_nowhere(&format!("agent/src/{domain}"), &[], &upward);
    }
    assert_nowhere(
        "agent/src/listener",
        &[],
        &[
            "crate::rpc",
            "crate::worker",
            "crate::files",
            "crate::processes",
        ],
    );
    assert_nowhere("agent/src/rpc", &[], &["crate::listener", "crate::worker"]);
}

#[test]
fn one_file_names_the_grpc_codes() {
    let allowed = ["agent/src/rpc/status.rs"];
    assert_nowhere(
        "agent/src",
        &allowed,
        &["tonic::Code", " Code::", "(Code::"],
    );
}

#[test]
fn agent_and_client_never_meet() {
    let manifest = |folder: &str| {
        fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest")
    };
    assert!(!manifest("agent").contains("guestline-client"));
    assert!(!manifest("host-client").contains("guestline-agent"));
    assert!(!manifest("gateway").contains("guestline-agent"));
    assert!(
        !manifest("machine").contains("guestline-client")
            && !manifest("machine").contains("guestline-proto")
    );
}

#[test]
fn the_gateways_parts_keep_to_themselves() {
    assert_nowhere("gateway/src", &["gateway/src/http"], &["axum"]);
    assert_nowhere("gateway/src", &["gateway/src/store"], &["sqlx::"]);
    assert_nowhere("gateway/src", &["gateway/src/sessions"], &["decide("]);
    assert_nowhere(
        "gateway/src/sessions",
        &[],
        &["crate::http", "crate::machines"],
    );
    assert_nowhere("gateway/src/machines", &[], &["crate::http", "crate::cli"]);
    assert_nowhere(
        "gateway/src/store",
        &[],
        &["crate::http", "crate::machines"],
    );
    assert_nowhere("gateway", &[], &["tonic", "prost", "unsafe {"]);
}

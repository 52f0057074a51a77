//! Files through the gateway, as the users that a grant names.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{Caller, World, encode, text};
use crate::{eventually::PATIENCE, gateway_cases, runner::Outcome};

gateway_cases![
    each_user_has_their_own_files: [34],
    a_directory_is_listed_and_links_are_what_they_lead_to,
    paths_are_taken_as_they_are_written,
    bytes_that_are_no_text_come_back_as_they_were,
    large_files_stream_both_ways_in_ranges,
    changes_are_told_as_they_happen_until_the_grant_goes: [35],
];

pub(super) fn file(vm: &str, path: &str) -> String {
    format!("/v1/vms/{vm}/files/{}", encode(path))
}

pub(super) async fn write(
    caller: &Caller,
    vm: &str,
    path: &str,
    content: &str,
) -> anyhow::Result<super::Answer> {
    caller
        .put(
            &file(vm, path),
            json!({"content": content, "encoding": "utf8"}),
        )
        .await
}

async fn each_user_has_their_own_files(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice", "bob"])).await?;
    let (alice, bob) = (token.user("alice"), token.user("bob"));
    let home = alice.get(&file(&vm, "/")).await?.ok()?;
    ensure!(
        home["files"]
            .as_array()
            .is_some_and(|files| files.contains(&json!({"name": "home", "kind": "directory"}))),
        "{home}"
    );
    write(&alice, &vm, "/home/alice/diary", "dear diary")
        .await?
        .ok()?;
    let read = alice.get(&file(&vm, "/home/alice/diary")).await?.ok()?;
    ensure!(
        read == json!({"content": "dear diary", "encoding": "utf8"}),
        "{read}"
    );
    ensure!(bob.get(&file(&vm, "/home/alice/diary")).await?.failure() == (403, "FORBIDDEN"));
    ensure!(write(&bob, &vm, "/home/alice/x", "").await?.failure() == (403, "FORBIDDEN"));
    let owner = alice
        .exec(&vm, "stat -c %U:%a /home/alice/diary")
        .await?
        .ok()?;
    ensure!(text(&owner, "stdout")?.starts_with("alice:"), "{owner}");
    ensure!(alice.get(&file(&vm, "/home/alice/none")).await?.failure() == (404, "FILE_NOT_FOUND"));
    let missing = write(&alice, &vm, "/home/alice/no/parent", "x").await?;
    ensure!(
        missing.failure() == (404, "FILE_NOT_FOUND")
            && missing.body["path"] == "/home/alice/no/parent",
        "{missing:?}"
    );
    ensure!(alice.get("/v1/vms").await?.ok()?["totalCount"] == 1);
    Ok(())
}

async fn a_directory_is_listed_and_links_are_what_they_lead_to(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    alice
        .exec(
            &vm,
            "mkdir d d/sub; touch d/f; ln -s sub d/to-sub; ln -s f d/to-f; ln -s none d/broken",
        )
        .await?
        .ok()?;
    let listing = alice.get(&file(&vm, "/home/alice/d")).await?.ok()?;
    let mut files: Vec<(&str, &str)> = Vec::new();
    for entry in listing["files"].as_array().into_iter().flatten() {
        files.push((text(entry, "name")?, text(entry, "kind")?));
    }
    files.sort_unstable();
    let expected = [
        ("broken", "file"),
        ("f", "file"),
        ("sub", "directory"),
        ("to-f", "file"),
        ("to-sub", "directory"),
    ];
    ensure!(files == expected, "{files:?}");
    ensure!(listing.get("content").is_none());
    Ok(())
}

async fn paths_are_taken_as_they_are_written(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    for name in ["a b+c%.txt", "%2F", "?x=1&y", "héllo", "a//b", "#"] {
        let path = format!("/home/alice/{name}");
        if name.contains("//") {
            alice.exec(&vm, "mkdir a").await?.ok()?;
        }
        write(&alice, &vm, &path, name).await?.ok()?;
        let read = alice.get(&file(&vm, &path)).await?.ok()?;
        ensure!(read["content"] == name, "{name}: {read}");
    }
    let up = alice.get(&file(&vm, "../alice/%2F")).await?.ok()?;
    ensure!(up["content"] == "%2F", "{up}");
    let odd = alice
        .put(
            &format!("/v1/vms/{vm}/files/%2Fhome%2Falice%2F%FF"),
            json!({"content": "x"}),
        )
        .await?;
    odd.ok()?;
    let listed = alice.exec(&vm, "ls | od -c | grep -c 377").await?.ok()?;
    ensure!(text(&listed, "stdout")?.trim() == "1", "{listed}");
    let nul = alice.get(&format!("/v1/vms/{vm}/files/%00")).await?;
    ensure!(nul.failure() == (400, "FILES_BAD_REQUEST"), "{nul:?}");
    let nowhere = alice
        .put(&format!("/v1/vms/{vm}/"), json!({"content": "x"}))
        .await?;
    ensure!(nowhere.status == StatusCode::NOT_FOUND, "{nowhere:?}");
    Ok(())
}

async fn bytes_that_are_no_text_come_back_as_they_were(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let path = file(&vm, "/home/alice/bytes");
    let alice = token.user("alice");
    // 00 ff 80 0a, and a text with an empty one before it.
    for (content, encoding, expected) in [
        (
            "AP+ACg==",
            "base64",
            json!({"content": "AP+ACg==", "encoding": "base64"}),
        ),
        ("", "utf8", json!({"content": "", "encoding": "utf8"})),
        (
            "aGk=",
            "base64",
            json!({"content": "hi", "encoding": "utf8"}),
        ),
    ] {
        alice
            .put(&path, json!({"content": content, "encoding": encoding}))
            .await?
            .ok()?;
        let read = alice.get(&path).await?.ok()?;
        ensure!(read == expected, "{read}");
    }
    let wrong = alice
        .put(&path, json!({"content": "!", "encoding": "base64"}))
        .await?;
    ensure!(
        wrong.failure() == (400, "INVALID_BASE64_CONTENT"),
        "{wrong:?}"
    );
    ensure!(
        alice.get(&path).await?.ok()?["content"] == "hi",
        "a refused write changed the file"
    );
    Ok(())
}

async fn large_files_stream_both_ways_in_ranges(world: &mut World) -> Outcome {
    let gateway = world.gateway_with(&["--max-file=1"]).await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    let raw = format!("/v1/vms/{vm}/raw-files/{}", encode("/home/alice/large"));
    let content: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sent = alice
        .request(Method::PUT, &raw)
        .body(content.clone())
        .send()
        .await?;
    ensure!(sent.status().is_success(), "{}", sent.text().await?);
    let back = alice.request(Method::GET, &raw).send().await?;
    ensure!(back.status() == StatusCode::OK && back.bytes().await?.as_ref() == content);
    let part = alice
        .request(Method::GET, &raw)
        .header(header::RANGE, "bytes=1000000-1000009")
        .send()
        .await?;
    ensure!(part.status() == StatusCode::PARTIAL_CONTENT);
    ensure!(part.headers()[header::CONTENT_RANGE] == "bytes 1000000-1000009/5000000");
    ensure!(part.bytes().await?.as_ref() == &content[1_000_000..1_000_010]);
    let beyond = alice
        .request(Method::GET, &raw)
        .header(header::RANGE, "bytes=5000000-")
        .send()
        .await?;
    ensure!(beyond.status() == StatusCode::RANGE_NOT_SATISFIABLE);
    let too_large = alice.get(&file(&vm, "/home/alice/large")).await?;
    ensure!(
        too_large.failure() == (400, "FILES_BAD_REQUEST"),
        "{too_large:?}"
    );
    let too_large = write(&alice, &vm, "/home/alice/large", &"x".repeat(3 << 20)).await?;
    ensure!(
        too_large.failure() == (400, "FILES_BAD_REQUEST"),
        "{too_large:?}"
    );
    Ok(())
}

async fn changes_are_told_as_they_happen_until_the_grant_goes(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    let path = format!("/v1/vms/{vm}/watch-files");
    let mut watch = alice.request(Method::POST, &path).send().await?;
    ensure!(watch.status() == StatusCode::OK, "{}", watch.text().await?);
    // Once the file is told, its folder is watched, and what becomes of the file is told too.
    let mut told = String::new();
    for (line, word) in [
        ("mkdir sub; echo x > sub/file", "sub/file"),
        ("rm sub/file", "delete"),
    ] {
        alice.exec(&vm, line).await?.ok()?;
        while !told.contains(word) {
            let chunk = tokio::time::timeout(PATIENCE, watch.chunk()).await??;
            told.push_str(std::str::from_utf8(&chunk.context("the watch ended")?)?);
        }
    }
    for line in told.lines().filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_str(line)?;
        ensure!(
            text(&event, "filename")?.starts_with("/home/alice/sub"),
            "{event}"
        );
    }
    ensure!(told.contains("create"), "{told}");
    let identity = alice.get("/auth/v1/whoami").await?.ok()?;
    let identity = text(&identity, "identityId")?;
    gateway
        .admin()?
        .delete(&format!("/identity/v1/identities/{identity}"))
        .await?
        .ok()?;
    let end = tokio::time::timeout(Duration::from_secs(5), async {
        while let Ok(Some(_)) = watch.chunk().await {}
    });
    ensure!(end.await.is_ok(), "it was not cut");
    Ok(())
}

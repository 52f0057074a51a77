//! The gateway's description of itself, held against a validator from outside: `guestline-tests openapi GATEWAY VALIDATOR…`.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{Gateway, Setting};
use crate::runner::Outcome;

/// The validator takes a document's path, and fails where that is none that OpenAPI allows.
pub async fn a_validator_takes_the_description(program: &Path, validator: &[&str]) -> Outcome {
    let folder = tempfile::tempdir()?;
    let setting = Setting {
        program: program.into(),
        database: None,
        arguments: Vec::new(),
        runtime: None,
    };
    let gateway = Gateway::start(&setting, folder.path()).await?;
    let document = gateway.caller("")?.get("/openapi.json").await?.ok()?;
    let said = validate(&document, folder.path(), validator)?;
    ensure!(said.is_ok(), "it is not valid: {}", said.unwrap_err());
    // That it would have said so: each of these breaks another rule.
    let mut untitled = document.clone();
    untitled["info"] = json!({});
    let mut unanswered = document.clone();
    unanswered["paths"]["/health"]["get"]["responses"]["200"] = json!({});
    let mut dangling = document;
    dangling["paths"]["/v1/vms"]["get"]["responses"]["200"] = json!({"$ref": "#/nowhere"});
    for (name, broken) in [
        ("no title", untitled),
        ("a response without words", unanswered),
        ("a reference to nothing", dangling),
    ] {
        let said = validate(&broken, folder.path(), validator)?;
        ensure!(said.is_err(), "the validator takes {name}");
    }
    gateway.terminate().await?;
    gateway.ended().await
}

/// The inner error is what the validator says.
fn validate(
    document: &Value,
    folder: &Path,
    validator: &[&str],
) -> anyhow::Result<Result<(), String>> {
    let path = folder.join("openapi.json");
    std::fs::write(&path, document.to_string())?;
    let (program, arguments) = validator.split_first().context("no validator")?;
    let mut command = Command::new(program);
    let said = command.args(arguments).arg(path).output();
    let said = said.with_context(|| format!("cannot run {program}"))?;
    Ok(match said.status.success() {
        true => Ok(()),
        false => Err([said.stdout, said.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()),
    })
}

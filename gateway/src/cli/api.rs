//! A gateway's API, as the admin's commands use it.

use std::fs;

use anyhow::{Context, bail};
use reqwest::{Method, Url};
use serde_json::Value;

use super::Gateway;

/// The variable with the admin key.
const KEY_VARIABLE: &str = "GUESTLINE_ADMIN_KEY";

/// Asks a gateway with an admin key.
#[derive(Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    url: Url,
    key: String,
    json: bool,
}

impl Api {
    pub(super) fn new(gateway: Gateway) -> anyhow::Result<Self> {
        let key = match &gateway.admin_key_file {
            Some(path) => fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => std::env::var(KEY_VARIABLE).with_context(|| {
                format!("no admin key: set {KEY_VARIABLE} or give --admin-key-file")
            })?,
        };
        let url =
            Url::parse(&gateway.url).with_context(|| format!("{:?} is no URL", gateway.url))?;
        if url.cannot_be_a_base() {
            bail!("{:?} is no http or https URL", gateway.url);
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            http,
            url,
            key: key.trim().into(),
            json: gateway.json,
        })
    }

    pub(super) async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Each part of the path is encoded by itself; one that begins with `?` is the query.
    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let mut url = self.url.clone();
        let (query, parts): (Vec<&str>, Vec<&str>) =
            path.iter().partition(|part| part.starts_with('?'));
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url.set_query(
            query
                .first()
                .map(|query| &query[1..])
                .filter(|query| !query.is_empty()),
        );
        let mut request = self.http.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("no gateway answers at {}", self.url))?;
        let status = answer.status();
        let text = answer
            .text()
            .await
            .context("the gateway's answer was cut off")?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        match (value["code"].as_str(), value["message"].as_str()) {
            (Some(code), Some(message)) => bail!("{message} ({code})"),
            _ => bail!("the gateway answered {status}"),
        }
    }

    /// The JSON, or what `text` makes of it for a person.
    pub(super) fn show(&self, answer: &Value, text: impl FnOnce(&Value) -> String) {
        if self.json {
            println!("{answer}");
            return;
        }
        let text = text(answer);
        if !text.is_empty() {
            println!("{text}");
        }
    }
}

/// A field for a person.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("-")
}

/// A line an element of a list.
pub(super) fn lines(value: &Value, list: &str, line: impl FnMut(&Value) -> String) -> String {
    let items = value[list]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

//! The orchestrator's hooks: URLs that are POSTed to when an external machine must change its state.

use std::time::Duration;

use guestline_client::Endpoint;
use serde::Deserialize;
use serde_json::json;

use super::MachineFailure;
use crate::{ids::VmId, store::VmState};

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Calls hooks.
#[derive(Clone, Debug)]
pub(crate) struct HookCaller {
    http: reqwest::Client,
}

/// What a hook may answer; anything else in it, and an empty body, is fine.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    endpoint: Option<String>,
}

impl HookCaller {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        // A redirect could lead a POST elsewhere than the admin said.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            http: http.build()?,
        })
    }

    /// POSTs `{"vmId", "action", "state"}` and waits for a 2xx. The endpoint, if the answer has one.
    pub(crate) async fn call(
        &self,
        url: &str,
        action: &'static str,
        vm: &VmId,
        state: VmState,
        limit: Duration,
    ) -> Result<Option<Endpoint>, MachineFailure> {
        let body = json!({"vmId": vm, "action": action, "state": state});
        let failed = |why: String| MachineFailure::Hook { doing: action, why };
        let sent = self.http.post(url).json(&body).timeout(limit).send().await;
        let answer = sent.map_err(|error| {
            if error.is_timeout() {
                MachineFailure::TimedOut {
                    doing: action,
                    limit,
                }
            } else {
                // Without the URL, which may hold the orchestrator's secret.
                failed(error.without_url().to_string())
            }
        })?;
        if !answer.status().is_success() {
            return Err(failed(format!("its hook answered {}", answer.status())));
        }
        let text = read_bounded(answer)
            .await
            .map_err(|error| failed(error.without_url().to_string()))?;
        let answer: Answer = serde_json::from_slice(&text).unwrap_or_default();
        let parse = |text: String| {
            text.parse()
                .map_err(|error| failed(format!("its hook answered a wrong endpoint: {error}")))
        };
        answer.endpoint.map(parse).transpose()
    }
}

/// At most [`MAX_ANSWER`]; more is left unread.
async fn read_bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(Vec::new());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

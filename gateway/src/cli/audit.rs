//! `guestline-gateway audit`.

use clap::Args;
use serde_json::Value;

use super::api::{Api, field, lines};
use crate::printable;

/// Which events to show.
#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Of this VM.
    #[arg(long)]
    vm: Option<String>,
    /// Of this identity.
    #[arg(long)]
    identity: Option<String>,
    /// Of this Linux uid. Starts, which are noted before the VM is asked, mostly have none.
    #[arg(long)]
    uid: Option<u32>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl AuditArguments {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        let mut query = format!("?limit={}", self.limit);
        for (name, value) in [("vm", &self.vm), ("identity", &self.identity)] {
            if let Some(value) = value {
                let value = percent_encoding::utf8_percent_encode(
                    value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                query.push_str(&format!("&{name}={value}"));
            }
        }
        if let Some(uid) = self.uid {
            query.push_str(&format!("&uid={uid}"));
        }
        let answer = api.get(&["v1", "audit", &query]).await?;
        api.show(&answer, |answer| lines(answer, "events", line));
        Ok(())
    }
}

/// What strangers wrote, a command line or a path, commands no terminal.
fn line(event: &Value) -> String {
    let who = match event["adminKey"].as_str() {
        Some(_) => "admin",
        None => field(event, "identity"),
    };
    let result = event["result"]
        .as_str()
        .map(|result| format!("  {result} in {} ms", event["durationMs"]));
    let uid = event["uid"].as_u64().map(|uid| format!("({uid})"));
    let line = format!(
        "{}  {:<5}  {who}  {}  vm={} user={}{}  {}{}",
        field(event, "time"),
        field(event, "phase"),
        field(event, "verb"),
        field(event, "vm"),
        field(event, "user"),
        uid.unwrap_or_default(),
        event["subject"].as_str().unwrap_or_default(),
        result.unwrap_or_default(),
    );
    printable::text(&line)
}

//! `guestline-gateway vm`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::{Api, field, lines};

#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// Creates a VM of the gateway's own, starts it, and prints its id.
    Create {
        /// A Linux user to create; may be given several times.
        #[arg(long = "user")]
        users: Vec<String>,
        /// Where commands and relative paths begin; the user's home otherwise.
        #[arg(long)]
        workdir: Option<String>,
        /// Goes to sleep after so many seconds without an operation.
        #[arg(long, value_name = "SECONDS")]
        idle_timeout: Option<u64>,
    },
    /// Registers a VM that somebody else runs, and prints its id.
    Register(Box<Registration>),
    /// Lists the VMs.
    List,
    /// A VM's state.
    Info { vm: String },
    /// Starts or wakes a VM.
    Start { vm: String },
    /// Powers a VM off.
    Stop { vm: String },
    /// Suspends a VM.
    Suspend { vm: String },
    /// Ends and forgets a VM.
    Delete { vm: String },
}

/// A VM that somebody else runs.
#[derive(Debug, Args)]
pub(super) struct Registration {
    /// vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH, as the gateway's host sees it; the port may be left out.
    endpoint: String,
    /// Its state now: running, suspended or stopped.
    #[arg(long, default_value = "running")]
    state: String,
    /// Where commands and relative paths begin; the user's home otherwise.
    #[arg(long)]
    workdir: Option<String>,
    /// Goes to sleep after so many seconds without an operation; never otherwise.
    #[arg(long, value_name = "SECONDS")]
    idle_timeout: Option<u64>,
    /// A file with its secret, on the gateway's host.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
    /// A URL to POST to when it must start or resume.
    #[arg(long, value_name = "URL")]
    start_hook: Option<String>,
    /// The same for stopping.
    #[arg(long, value_name = "URL")]
    stop_hook: Option<String>,
    /// The same for suspending.
    #[arg(long, value_name = "URL")]
    suspend_hook: Option<String>,
    /// The same for deleting.
    #[arg(long, value_name = "URL")]
    delete_hook: Option<String>,
}

impl Registration {
    fn to_body(&self) -> Value {
        let hooks = json!({
            "start": self.start_hook, "stop": self.stop_hook, "suspend": self.suspend_hook, "delete": self.delete_hook,
        });
        json!({
            "endpoint": self.endpoint,
            "state": self.state,
            "workdir": self.workdir,
            "idleTimeoutSeconds": self.idle_timeout,
            "secretFile": self.secret_file,
            "hooks": hooks,
        })
    }
}

impl VmCommand {
    pub(super) async fn run(&self, api: &Api) -> anyhow::Result<()> {
        let id = |answer: &Value| field(answer, "id").to_owned();
        let silent = |_: &Value| String::new();
        match self {
            Self::Create {
                users,
                workdir,
                idle_timeout,
            } => {
                let users: Vec<Value> = users.iter().map(|name| json!({"name": name})).collect();
                let mut body = json!({"users": users, "workdir": workdir});
                if let Some(seconds) = idle_timeout {
                    body["idleTimeoutSeconds"] = json!(seconds);
                }
                api.show(&api.post(&["v1", "vms"], body).await?, id);
            }
            Self::Register(new) => {
                api.show(&api.post(&["v1", "external-vms"], new.to_body()).await?, id);
            }
            Self::List => {
                let line = |vm: &Value| {
                    format!(
                        "{}  {:<10}  {}",
                        field(vm, "id"),
                        field(vm, "state"),
                        field(vm, "kind")
                    )
                };
                api.show(&api.get(&["v1", "vms"]).await?, |answer| {
                    lines(answer, "vms", line)
                });
            }
            Self::Info { vm } => {
                api.show(&api.get(&["v1", "vms", vm]).await?, |answer| {
                    field(answer, "state").into()
                });
            }
            Self::Start { vm } => api.show(
                &api.post(&["v1", "vms", vm, "start"], json!({})).await?,
                silent,
            ),
            Self::Stop { vm } => api.show(
                &api.post(&["v1", "vms", vm, "stop"], json!({})).await?,
                silent,
            ),
            Self::Suspend { vm } => api.show(
                &api.post(&["v1", "vms", vm, "suspend"], json!({})).await?,
                silent,
            ),
            Self::Delete { vm } => api.show(&api.delete(&["v1", "vms", vm]).await?, silent),
        }
        Ok(())
    }
}

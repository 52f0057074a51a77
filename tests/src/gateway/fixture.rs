//! A gateway's own binary, on a database and a data folder of its own, and how its cases talk to it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// To be up, on a busy machine, which may have to make an image first.
const START_LIMIT: Duration = Duration::from_secs(300);

/// To end after SIGTERM with nothing under way.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The binary.
    pub program: PathBuf,
    /// A postgres:// URL; SQLite in the data folder otherwise.
    pub database: Option<String>,
    /// More arguments of `serve`.
    pub arguments: Vec<String>,
    /// Where it keeps the records of its machines (`XDG_RUNTIME_DIR`); as we do otherwise.
    pub runtime: Option<PathBuf>,
}

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    process: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    folder: PathBuf,
    url: String,
    ssh: Option<SocketAddr>,
    key: Option<String>,
    http: reqwest::Client,
}

impl Gateway {
    /// Starts one on a data folder, which may be an earlier one's. A key is only there on an empty database.
    pub async fn start(setting: &Setting, folder: &Path) -> anyhow::Result<Self> {
        // What reqwest uses; once is enough, and again does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut command = Command::new(&setting.program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(&setting.arguments);
        if let Some(url) = &setting.database {
            // By the environment: arguments are for all to see.
            command.env("GUESTLINE_GATEWAY_DATABASE", url);
        }
        if let Some(runtime) = &setting.runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut process = command
            .spawn()
            .with_context(|| format!("cannot run {}", setting.program.display()))?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let mut this = Self {
            process,
            stdout: BufReader::new(stdout).lines(),
            folder: folder.into(),
            url: String::new(),
            ssh: None,
            key: None,
            http: reqwest::Client::new(),
        };
        timeout(START_LIMIT, this.wait())
            .await
            .context("the gateway did not start in time")??;
        Ok(this)
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        while let Some(line) = self.stdout.next_line().await? {
            if let Some(key) = line.strip_prefix("admin key, shown this once: ") {
                self.key = Some(key.into());
            }
            if let Some(address) = line.strip_prefix("listening for SSH on ") {
                self.ssh = Some(address.parse()?);
            }
            if let Some(address) = line.strip_prefix("listening on ") {
                self.url = format!("http://{address}");
                return Ok(());
            }
        }
        bail!("the gateway did not start: {}", self.log())
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens for SSH, if it was told to.
    pub fn ssh(&self) -> anyhow::Result<SocketAddr> {
        self.ssh.context("this gateway has no SSH")
    }

    /// The admin key, if it was made at this start.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// As the admin of this gateway.
    pub fn admin(&self) -> anyhow::Result<Caller> {
        self.caller(self.key.as_deref().context("this gateway made no key")?)
    }

    /// With a token or key.
    pub fn caller(&self, secret: &str) -> anyhow::Result<Caller> {
        Ok(Caller {
            http: self.http.clone(),
            url: self.url.clone(),
            secret: secret.into(),
            user: None,
        })
    }

    /// The process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("it has ended")
    }

    /// Sends SIGTERM and does not wait.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.pid()?.to_string();
        ensure!(
            Command::new("kill").arg(&pid).status().await?.success(),
            "cannot signal {pid}"
        );
        Ok(())
    }

    /// Waits for its end, which must be an orderly one.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let status = timeout(END_LIMIT, self.process.wait())
            .await
            .context("the gateway did not end")??;
        ensure!(
            status.success(),
            "the gateway ended with {status}: {}",
            self.log()
        );
        Ok(())
    }

    /// Its process, for who ends it in a way of their own.
    pub fn into_process(self) -> Child {
        self.process
    }

    /// Ends it as a crash does.
    pub async fn crash(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// Somebody with a credential.
#[derive(Clone, Debug)]
pub struct Caller {
    http: reqwest::Client,
    url: String,
    secret: String,
    user: Option<String>,
}

/// A status and a JSON body.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body; null if it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    pub fn ok(self) -> anyhow::Result<Value> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// The status and the code of a failure.
    pub fn failure(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.body["code"].as_str().unwrap_or_default(),
        )
    }
}

impl Caller {
    /// As this Linux user.
    pub fn user(&self, user: &str) -> Self {
        Self {
            user: Some(user.into()),
            ..self.clone()
        }
    }

    /// The token or key.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// A request to a path that is encoded already.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.secret);
        if let Some(user) = &self.user {
            request = request.header("x-freestyle-vm-linux-user-id", user);
        }
        request
    }

    /// Asks, and reads the answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok(Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or_default(),
        })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Runs a line.
    pub async fn exec(&self, vm: &str, line: &str) -> anyhow::Result<Answer> {
        let body = json!({"command": line, "terminal": null, "timeoutMs": null});
        self.post(&format!("/v1/vms/{vm}/exec-await"), body).await
    }

    /// Registers a machine that runs.
    pub async fn register(&self, registration: Value) -> anyhow::Result<String> {
        let answer = self.post("/v1/external-vms", registration).await?.ok()?;
        Ok(answer["id"].as_str().context("no id")?.into())
    }

    /// A new identity.
    pub async fn identity(&self) -> anyhow::Result<String> {
        let answer = self
            .ask(Method::POST, "/identity/v1/identities", None)
            .await?
            .ok()?;
        Ok(answer["id"].as_str().context("no id")?.into())
    }

    /// A new token: its id, and who has it.
    pub async fn token(&self, identity: &str) -> anyhow::Result<(String, Caller)> {
        let path = format!("/identity/v1/identities/{identity}/tokens");
        let answer = self.ask(Method::POST, &path, None).await?.ok()?;
        let id = answer["id"].as_str().context("no id")?;
        let secret = answer["token"].as_str().context("no token")?.to_owned();
        Ok((
            id.into(),
            Self {
                secret,
                user: None,
                ..self.clone()
            },
        ))
    }

    /// Grants a VM; `users` as in the API.
    pub async fn grant(&self, identity: &str, vm: &str, users: Value) -> anyhow::Result<()> {
        let path = format!("/identity/v1/identities/{identity}/permissions/vm/{vm}");
        self.post(&path, json!({"allowedUsers": users}))
            .await?
            .ok()
            .map(drop)
    }
}

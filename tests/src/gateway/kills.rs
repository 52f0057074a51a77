//! A gateway is killed in the middle of what it does with its machines. Whatever the moment, the next one on its folder has
//! each machine once, with the memory that it had, and none runs that nobody knows of. `guestline-tests sdk` runs this, because
//! it boots real machines.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Caller, Gateway, Setting,
    machines::{boot_id, create, processes_of, qemus_of},
    text,
};
use crate::{postgres::Postgres, runner::Outcome};

/// When after a request the gateway is killed, in milliseconds: from before it has begun to about the end of a boot.
const CREATING: [u64; 5] = [1, 60, 400, 1500, 4000];
const CHANGING: [u64; 3] = [0, 3, 25];
const STARTING: [u64; 3] = [30, 700, 2500];

/// A folder whose gateways do not live long.
struct Killed<'a> {
    setting: &'a Setting,
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
    key: String,
}

/// The same on PostgreSQL.
pub async fn at_any_moment_on_postgresql(setting: &Setting) -> Outcome {
    let server = Postgres::start()?;
    let setting = Setting {
        database: Some(server.database("gateway")?),
        ..setting.clone()
    };
    at_any_moment(&setting).await
}

/// A gateway killed at any moment of what it does with a machine: it loses and doubles nothing.
pub async fn at_any_moment(setting: &Setting) -> Outcome {
    let mut killed = Killed::start(setting).await?;
    killed.creating().await.context("creating")?;
    let vm = create(&killed.admin()?, json!({"users": [{"name": "alice"}]})).await?;
    killed.running(&vm).await.context("running")?;
    killed.suspending(&vm).await.context("suspending")?;
    killed.waking(&vm).await.context("waking")?;
    killed.starting(&vm).await.context("starting")?;
    killed.deleting(vm).await.context("deleting")
}

impl<'a> Killed<'a> {
    async fn start(setting: &'a Setting) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let gateway = Gateway::start(setting, folder.path()).await?;
        let key = gateway.key().context("no key")?.to_owned();
        Ok(Self {
            setting,
            folder,
            gateway: Some(gateway),
            key,
        })
    }

    fn admin(&self) -> anyhow::Result<Caller> {
        self.gateway
            .as_ref()
            .context("no gateway")?
            .caller(&self.key)
    }

    /// Asks, kills the gateway after so long, and starts the next one.
    async fn kill_after(
        &mut self,
        millis: u64,
        method: Method,
        path: String,
        body: Value,
    ) -> Outcome {
        let admin = self.admin()?;
        let asked = tokio::spawn(async move { admin.ask(method, &path, Some(body)).await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.gateway.take().context("no gateway")?.crash().await?;
        // Answered or cut off: what counts is what is there afterwards.
        let _ = asked.await?;
        self.gateway = Some(Gateway::start(self.setting, self.folder.path()).await?);
        Ok(())
    }

    async fn ids(&self) -> anyhow::Result<Vec<String>> {
        let list = self.admin()?.get("/v1/vms").await?.ok()?;
        let vms = list["vms"].as_array().cloned().unwrap_or_default();
        vms.iter().map(|vm| Ok(text(vm, "id")?.into())).collect()
    }

    /// It works, and there is one of it.
    async fn must_work(&self, vm: &str) -> Outcome {
        let said = self.admin()?.user("alice").exec(vm, "id -un").await?.ok()?;
        ensure!(said["stdout"] == "alice\n", "{said}");
        let qemus = qemus_of(vm)?;
        ensure!(qemus == 1, "{qemus} of it run");
        Ok(())
    }

    /// It works, and was not booted since.
    async fn must_have_kept(&self, vm: &str, boot: &Value) -> Outcome {
        self.must_work(vm).await?;
        let now = boot_id(&self.admin()?, vm).await?;
        ensure!(now == *boot, "it lost its memory");
        Ok(())
    }

    /// Nothing of it is left.
    fn must_be_gone(&self, vm: &str) -> Outcome {
        ensure!(processes_of(vm)? == 0, "something of {vm} still runs");
        let left = names(&self.folder.path().join("machines"))?;
        ensure!(!left.iter().any(|name| name.starts_with(vm)), "{left:?}");
        Ok(())
    }

    async fn creating(&mut self) -> Outcome {
        let body = json!({"users": [{"name": "alice"}]});
        for millis in CREATING {
            self.kill_after(millis, Method::POST, "/v1/vms".into(), body.clone())
                .await?;
            let there = self.ids().await?;
            for vm in &there {
                // It was killed when the machine was whole already.
                self.must_work(vm).await?;
                self.delete(vm).await?;
            }
            // The log has every machine that was begun.
            for vm in self.begun().await? {
                self.must_be_gone(&vm)?;
            }
        }
        Ok(())
    }

    /// The ids of all machines that a gateway began to create.
    async fn begun(&self) -> anyhow::Result<Vec<String>> {
        let events = self.admin()?.get("/v1/audit?limit=1000").await?.ok()?;
        let events = events["events"].as_array().cloned().unwrap_or_default();
        let creates = events.iter().filter(|event| event["verb"] == "create-vm");
        creates
            .map(|event| Ok(text(event, "subject")?.into()))
            .collect()
    }

    async fn delete(&self, vm: &str) -> Outcome {
        self.admin()?
            .delete(&format!("/v1/vms/{vm}"))
            .await?
            .ok()
            .map(drop)
    }

    async fn post(&self, vm: &str, action: &str) -> Outcome {
        let path = format!("/v1/vms/{vm}/{action}");
        self.admin()?.post(&path, json!({})).await?.ok().map(drop)
    }

    /// One that was running and was asked for nothing has its memory whatever happens to its gateway.
    async fn running(&mut self, vm: &str) -> Outcome {
        let boot = boot_id(&self.admin()?, vm).await?;
        self.kill_after(1, Method::GET, format!("/v1/vms/{vm}"), json!({}))
            .await?;
        self.must_have_kept(vm, &boot).await
    }

    async fn suspending(&mut self, vm: &str) -> Outcome {
        let boot = boot_id(&self.admin()?, vm).await?;
        for millis in CHANGING {
            let path = format!("/v1/vms/{vm}/suspend");
            self.kill_after(millis, Method::POST, path, json!({}))
                .await?;
            self.must_have_kept(vm, &boot).await?;
        }
        Ok(())
    }

    async fn waking(&mut self, vm: &str) -> Outcome {
        let boot = boot_id(&self.admin()?, vm).await?;
        for millis in CHANGING {
            self.post(vm, "suspend").await?;
            let path = format!("/v1/vms/{vm}/start");
            self.kill_after(millis, Method::POST, path, json!({}))
                .await?;
            self.must_have_kept(vm, &boot).await?;
        }
        Ok(())
    }

    async fn starting(&mut self, vm: &str) -> Outcome {
        for millis in STARTING {
            self.post(vm, "stop").await?;
            let path = format!("/v1/vms/{vm}/start");
            self.kill_after(millis, Method::POST, path, json!({}))
                .await?;
            self.must_work(vm).await?;
        }
        Ok(())
    }

    async fn deleting(&mut self, mut vm: String) -> Outcome {
        for millis in CHANGING {
            let path = format!("/v1/vms/{vm}");
            self.kill_after(millis, Method::DELETE, path, json!({}))
                .await?;
            if self.ids().await? == [vm.as_str()] {
                self.must_work(&vm).await?;
                continue;
            }
            self.must_be_gone(&vm)?;
            ensure!(self.ids().await?.is_empty());
            vm = create(&self.admin()?, json!({"users": [{"name": "alice"}]})).await?;
        }
        self.delete(&vm).await?;
        self.must_be_gone(&vm)
    }
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let files = std::fs::read_dir(folder)?;
    files
        .map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
        .collect()
}

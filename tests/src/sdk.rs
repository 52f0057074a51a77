//! The published SDK, and what needs machines of the gateway's own: `guestline-tests sdk AGENT GATEWAY TARGET [FILTER]`, with a
//! static agent, and the workspace's target folder for images and packages. The flow itself is `tests/sdk/flow.mjs`.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    gateway::{Gateway, Setting, kills, machines},
    runner::{Outcome, Tally},
};

/// Where the scripts are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk");

/// The longest that a case may take: some boot a dozen machines, under emulation.
const CASE_DEADLINE: Duration = Duration::from_secs(1800);

/// With the kernel's vsock there is no process to lose.
const NEEDS_VSOCK_PROCESS: &str =
    "a_machine_that_lost_its_vsock_is_an_error_until_it_is_started_again";

type Run = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// By name, with the promises that each shows. The minimal image boots in seconds; it has no tools that make users and groups,
/// no systemd and no disk.
const CASES: &[(&str, &[u8], Run)] = &[
    (
        "the_published_sdk_works_with_minimal_machines",
        &[],
        |stage| Box::pin(stage.node("flow.mjs", "minimal")),
    ),
    (
        "the_published_sdk_works_with_debian_machines",
        &[],
        |stage| Box::pin(stage.node("flow.mjs", "debian")),
    ),
    (
        "the_published_sdk_works_in_a_page_of_another_origin",
        &[],
        |stage| Box::pin(stage.node("browser.mjs", "minimal")),
    ),
    ("running_machines_outlive_their_gateway", &[41], |stage| {
        let setting = &stage.minimal;
        Box::pin(machines::running_machines_outlive_their_gateway(setting))
    }),
    (
        "a_suspended_machine_keeps_its_memory_and_gets_the_time",
        &[],
        |stage| {
            let setting = &stage.minimal;
            Box::pin(machines::a_suspended_machine_keeps_its_memory_and_gets_the_time(setting))
        },
    ),
    ("an_ephemeral_machine_goes_when_it_ends", &[], |stage| {
        let setting = &stage.minimal;
        Box::pin(machines::an_ephemeral_machine_goes_when_it_ends(setting))
    }),
    (
        "an_ephemeral_machine_outlives_its_gateway_but_not_its_end",
        &[],
        |stage| {
            let setting = &stage.minimal;
            Box::pin(machines::an_ephemeral_machine_outlives_its_gateway_but_not_its_end(setting))
        },
    ),
    (NEEDS_VSOCK_PROCESS, &[], |stage| {
        let setting = &stage.minimal;
        Box::pin(
            machines::a_machine_that_lost_its_vsock_is_an_error_until_it_is_started_again(setting),
        )
    }),
    (
        "a_gateway_on_sqlite_killed_at_any_moment_loses_and_doubles_nothing",
        &[41],
        |stage| Box::pin(kills::at_any_moment(&stage.minimal)),
    ),
    (
        "a_gateway_on_postgresql_killed_at_any_moment_loses_and_doubles_nothing",
        &[41],
        |stage| Box::pin(kills::at_any_moment_on_postgresql(&stage.minimal)),
    ),
    ("what_cannot_be_created_is_not", &[], |stage| {
        Box::pin(machines::what_cannot_be_created_is_not(&stage.debian))
    }),
];

/// What the cases have.
struct Stage {
    minimal: Setting,
    debian: Setting,
    /// Where the package is.
    folder: PathBuf,
}

/// The names that are printed of all cases, with the promises that they show.
pub fn promises() -> impl Iterator<Item = (String, &'static [u8])> {
    CASES
        .iter()
        .map(|(name, promises, _)| (format!("sdk::{name}"), *promises))
}

/// Runs the cases whose name contains `filter`.
pub async fn run(
    agent: &Path,
    program: PathBuf,
    target: &Path,
    filter: &str,
) -> anyhow::Result<Tally> {
    let folder = target.join("guestline/sdk");
    install(&folder)?;
    let stage = Stage {
        minimal: setting("minimal", agent, &program, target),
        debian: setting("debian", agent, &program, target),
        folder,
    };
    let mut tally = Tally::default();
    for (name, _, case) in CASES.iter().filter(|(name, ..)| name.contains(filter)) {
        if *name == NEEDS_VSOCK_PROCESS && guestline_machine::kernel_vsock_works() {
            println!("test sdk::{name} ... SKIPPED: this host's kernel carries the vsock");
            continue;
        }
        let result = match tokio::time::timeout(CASE_DEADLINE, case(&stage)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("did not end in time")),
        };
        match result {
            Ok(()) => {
                tally.passed += 1;
                println!("test sdk::{name} ... ok");
            }
            Err(error) => {
                tally.failed += 1;
                println!("test sdk::{name} ... FAILED\n    {error:#}");
            }
        }
    }
    Ok(tally)
}

fn setting(image: &str, agent: &Path, program: &Path, target: &Path) -> Setting {
    let words = [
        "--machines",
        "--machine-memory",
        "512",
        "--image",
        image,
        "--agent",
    ];
    let mut arguments: Vec<String> = words.map(Into::into).into();
    arguments.extend([
        agent.display().to_string(),
        "--image-cache".into(),
        target.display().to_string(),
    ]);
    if image == "debian" {
        // It boots a whole system, which an emulated processor takes its time for.
        arguments.extend(["--wake-timeout".into(), "300".into()]);
    }
    Setting {
        program: program.into(),
        database: None,
        arguments,
        runtime: None,
    }
}

impl Stage {
    /// Runs a script's tests against a gateway of their own.
    async fn node(&self, script: &str, image: &str) -> Outcome {
        let setting = match image {
            "minimal" => &self.minimal,
            _ => &self.debian,
        };
        let data = tempfile::tempdir()?;
        let gateway = Gateway::start(setting, data.path()).await?;
        let key = gateway.key().context("the gateway made no key")?;
        let status = Command::new("node")
            .args(["--test", script])
            .current_dir(&self.folder)
            .env("GATEWAY_URL", gateway.url())
            .env("ADMIN_KEY", key)
            .env("IMAGE", image)
            .status()
            .context("cannot run node: apt-get install nodejs")?;
        ensure!(
            status.success(),
            "{script} failed; the gateway's log:\n{}",
            gateway.log()
        );
        gateway.terminate().await?;
        gateway.ended().await
    }
}

/// The scripts go beside the packages, which `cargo xtask test` has installed exactly as the lock says.
fn install(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.join("node_modules/freestyle-sandboxes").is_dir(),
        "no packages in {}: `cargo xtask test` installs them",
        folder.display()
    );
    for file in ["flow.mjs", "browser.mjs", "page.mjs"] {
        fs::copy(Path::new(SOURCES).join(file), folder.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}

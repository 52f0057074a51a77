//! `cargo xtask test`: unit tests, then the same cases over a Unix socket and in real machines, and there the example of a
//! client in Python too; the gateway in front of the agent, and OpenSSH's clients and the published SDK in front of the
//! gateway. At the end the table of promises, from what these steps printed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::SystemTime,
};

use anyhow::{anyhow, ensure};
use guestline_machine::{ImageKind, Machine, MachineSpec, Setup};

use crate::{
    agent, bench, fuzz, node, packages,
    python::{self, Python, venv},
    vm::READY_LIMIT,
    workspace::{cargo, check, patient_cargo, record, root, target},
};

/// Of each target: enough for what a change broke at the surface. `cargo xtask fuzz` goes deeper.
const FUZZ_SECONDS: u32 = 12;

/// What the machine has in which Debian's programs are met over SSH: `openssh-client` for the old scp's other end, `python3` for
/// Ansible and as a web server.
const SSH_PACKAGES: [&str; 4] = ["git", "openssh-client", "python3", "rsync"];

pub(crate) fn test() -> anyhow::Result<()> {
    install_servers()?;
    let printed = target().join("guestline/printed");
    // What an earlier run showed is not shown by this one.
    let _ = fs::remove_dir_all(&printed);
    fs::create_dir_all(&printed)?;
    let mut unit = cargo();
    unit.args(["test", "--workspace"]);
    record(&mut unit, &printed.join("unit"), |line| {
        !line.is_empty() && !line.ends_with(" ... ok") && !line.starts_with("running ")
    })?;
    // With the features that the tests were built with, so that no dependency is built twice.
    check(cargo().args(["build", "--quiet", "--workspace", "--all-targets"]))?;
    let suites = target().join("debug/guestline-tests");
    let gateway = target().join("debug/guestline-gateway");
    let switched = agent::build_switched()?;
    let agent = agent::build()?;
    // The suites wait for clocks and for machines more than they compute.
    let meanwhile = thread::spawn(|| {
        let setup = Setup::new(&target());
        let with_programs = SSH_PACKAGES.map(str::to_owned);
        for (image, packages) in [
            (ImageKind::Debian, &with_programs[..]),
            (ImageKind::Minimal, &[]),
            (ImageKind::Debian, &[]),
        ] {
            // What fails here fails again for whoever starts such a machine, and is told there.
            let _ = setup.prepare(image, packages);
        }
        let fuzzed = fuzz::build(patient_cargo());
        (fuzzed, bench::check::build(patient_cargo()))
    });
    let mut failed = Vec::new();
    let mut note = |name: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            let told = format!("{name}: {error:#}");
            eprintln!("{told}");
            failed.push(told);
        }
    };
    note(
        "local",
        record(
            Command::new(&suites).arg("local").arg(&agent),
            &printed.join("local"),
            |_| true,
        ),
    );
    note(
        "switched",
        record(
            Command::new(&suites).arg("switched").arg(&switched),
            &printed.join("switched"),
            |_| true,
        ),
    );
    note(
        "mutations",
        check(Command::new(&suites).arg("mutations").arg(&switched)),
    );
    // Half a minute of what `cargo xtask soak` does for longer.
    note(
        "soak",
        check(
            Command::new(&suites)
                .args(["soak", "30", "1", "local"])
                .arg(&agent),
        ),
    );
    let python = Python::prepare();
    note(
        "python",
        match &python {
            Ok(python) => {
                python.run_example(Command::new(&suites), &["local", &agent.to_string_lossy()])
            }
            Err(error) => Err(anyhow!("{error:#}")),
        },
    );
    let python = python.ok();
    note(
        "gateway",
        record(
            Command::new(&suites)
                .arg("gateway")
                .arg(&agent)
                .arg(&gateway),
            &printed.join("gateway"),
            |_| true,
        ),
    );
    note(
        "openapi",
        python::openapi_validator().and_then(|validator| {
            let mut suite = Command::new(&suites);
            check(suite.arg("openapi").arg(&gateway).arg(validator))
        }),
    );
    note(
        "ssh",
        record(
            Command::new(&suites).arg("ssh").arg(&agent).arg(&gateway),
            &printed.join("ssh"),
            |_| true,
        ),
    );
    note(
        "ssh in a machine",
        over_ssh(&suites, &agent, &gateway, &printed),
    );
    let sdk = [agent.as_path(), &gateway, &target()];
    note(
        "sdk",
        node::prepare().and_then(|_| {
            let mut suite = Command::new(&suites);
            record(suite.arg("sdk").args(sdk), &printed.join("sdk"), |_| true)
        }),
    );
    for image in [ImageKind::Minimal, ImageKind::Debian] {
        note(
            image.name(),
            in_machine(image, &suites, &agent, python.as_ref(), &printed),
        );
    }
    let (fuzzed, counted) = built(meanwhile);
    note(
        "fuzz",
        fuzzed.and_then(|programs| {
            fuzz::fuzz(&programs, FUZZ_SECONDS, None, Some(&printed.join("fuzz")))
        }),
    );
    note(
        "instructions",
        counted.and_then(|program| bench::check::check(&program, false)),
    );
    note(
        "mutations in a machine",
        without_defences(&suites, &switched),
    );
    note(
        "promises",
        check(Command::new(&suites).arg("promises").arg(&printed)),
    );
    ensure!(
        failed.is_empty(),
        "what failed:\n{}{}",
        failed_cases(&printed)?,
        failed.join("\n")
    );
    Ok(())
}

/// The cases that failed and why, as the suites printed it, once more where a long run ends.
fn failed_cases(printed: &Path) -> anyhow::Result<String> {
    let mut told = String::new();
    for file in fs::read_dir(printed)? {
        let lines = fs::read_to_string(file?.path())?;
        let mut within = false;
        for line in lines.lines() {
            within = line.ends_with(" ... FAILED") || within && line.starts_with("    ");
            if within {
                told.push_str(&format!("{line:.2000}\n"));
            }
        }
    }
    Ok(told)
}

type Built = anyhow::Result<PathBuf>;

fn built(meanwhile: JoinHandle<(Built, Built)>) -> (Built, Built) {
    let panicked = || Err(anyhow!("whoever built it panicked"));
    meanwhile
        .join()
        .unwrap_or_else(|_| (panicked(), panicked()))
}

/// What the gateway's tests want of the host: PostgreSQL's server, without the cluster that Debian's package would start,
/// Chromium, OpenSSH's clients, and what uses them.
fn install_servers() -> anyhow::Result<()> {
    let postgres = "/usr/lib/postgresql";
    let cluster = Path::new("/etc/postgresql-common/createcluster.conf");
    if !Path::new(postgres).exists() && !cluster.exists() && packages::may_install() {
        fs::create_dir_all("/etc/postgresql-common")?;
        fs::write(cluster, "create_main_cluster = false\n")?;
    }
    packages::install(&[
        (postgres, "postgresql"),
        ("/usr/bin/chromium", "chromium"),
        ("/usr/bin/ssh", "openssh-client"),
        ("/usr/bin/rsync", "rsync"),
        ("/usr/bin/git", "git"),
    ])
}

/// Debian's programs over SSH, in a machine that has their other ends.
fn over_ssh(suites: &Path, agent: &Path, gateway: &Path, printed: &Path) -> anyhow::Result<()> {
    let ansible = venv("ansible", &root().join("tests/ansible/requirements.txt"))?;
    let machine = start(ImageKind::Debian, "ssh", agent, &SSH_PACKAGES)?;
    record(
        Command::new(suites)
            .arg("ssh-machine")
            .arg(gateway)
            .arg(machine.endpoint())
            .arg(ansible.join("bin")),
        &printed.join("ssh-machine"),
        |_| true,
    )
}

/// `cargo xtask soak`.
pub(crate) fn soak(minutes: u64, seed: Option<u64>, local: bool) -> anyhow::Result<()> {
    check(cargo().args(["build", "--quiet", "--package", "guestline-tests"]))?;
    let suites = target().join("debug/guestline-tests");
    let agent = agent::build()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = seed.unwrap_or(now.as_secs());
    let (seconds, seed) = ((60 * minutes).to_string(), seed.to_string());
    if local {
        let mut soak = Command::new(&suites);
        return check(soak.args(["soak", &seconds, &seed, "local"]).arg(&agent));
    }
    let machine = start(ImageKind::Minimal, "soak", &agent, &[])?;
    let words = [
        "soak",
        &seconds,
        &seed,
        "machine",
        "minimal",
        &machine.endpoint(),
    ];
    check(for_machine(&suites, &machine).args(words))
}

/// A machine whose agent loses one defence after the other.
fn without_defences(suites: &Path, switched: &Path) -> anyhow::Result<()> {
    let machine = start(ImageKind::Minimal, "switched", switched, &[])?;
    let words = ["mutations", "minimal", &machine.endpoint()];
    check(for_machine(suites, &machine).args(words))
}

/// The suites, with the machine's secret if it has one.
fn for_machine(suites: &Path, machine: &Machine) -> Command {
    let mut command = Command::new(suites);
    let secret_file = machine.secret_file();
    command.envs(secret_file.map(|path| ("GUESTLINE_SECRET_FILE", path)));
    command
}

fn in_machine(
    image: ImageKind,
    suites: &Path,
    agent: &Path,
    python: Option<&Python>,
    printed: &Path,
) -> anyhow::Result<()> {
    let machine = start(image, image.name(), agent, &[])?;
    let endpoint = machine.endpoint();
    let words = ["machine", image.name(), &endpoint];
    let file = printed.join(image.name());
    let suites = || for_machine(suites, &machine);
    // Here the endpoint may need the VMM's handshake before ours. Where there is no Python, that was said.
    let example = python.map_or(Ok(()), |python| python.run_example(suites(), &words));
    // The last of the cases powers the machine off.
    record(suites().args(words), &file, |_| true)?;
    example
}

/// A machine with alice and bob and these packages, whose agent answers.
fn start(image: ImageKind, name: &str, agent: &Path, packages: &[&str]) -> anyhow::Result<Machine> {
    let setup = Setup::new(&target());
    let spec = MachineSpec {
        name: format!("test-{name}-{}", std::process::id()),
        image,
        users: vec!["alice".into(), "bob".into()],
        memory: 1024,
        cpus: None,
        agent: agent.into(),
        disk: None,
        packages: packages.iter().map(|&name| name.into()).collect(),
        channels: Vec::new(),
        // One with a secret, in which everything goes through the proof, and one without.
        secret: image == ImageKind::Minimal,
    };
    let mut machine = Machine::start(&setup, &spec, false)?;
    machine.wait_ready(READY_LIMIT)?;
    Ok(machine)
}

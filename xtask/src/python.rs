//! Python: virtual environments with exactly what a file of requirements says, and for examples/python the code generated from
//! proto/. They are below the target folder, and made anew when what they are made from has changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::workspace::{check, root, target};

/// A virtual environment with exactly these requirements, below the target folder; what is missing comes from the package index
/// that pip is configured for.
pub(crate) fn venv(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let folder = target().join("guestline").join(name);
    // Written last, so that a set-up that was cut short is done again.
    let done = folder.join("requirements.txt");
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    if fs::read_to_string(&done).ok().as_ref() == Some(&wanted) {
        return Ok(folder);
    }
    eprintln!("guestline: making the Python environment {name}, once");
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(
        "no Python environment: python3 with its venv module is missing (apt-get install python3-venv)",
    )?;
    check(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary", ":all:", "--no-deps", "--requirement"])
            .arg(requirements),
    )
    .with_context(|| {
        format!(
            "the packages of {} cannot be installed: they come from PyPI, or the index in pip's configuration, as wheels for this Python and platform:\n{wanted}",
            requirements.display()
        )
    })?;
    fs::write(&done, wanted)?;
    Ok(folder)
}

/// A Python that can run the example.
pub(crate) struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// Sets up what is missing, from the package index that pip is configured for.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let folder = venv("python", &example().join("requirements.txt"))?;
        let python = Self {
            interpreter: folder.join("bin/python"),
        };
        check(
            Command::new(&python.interpreter)
                .arg(example().join("generate.py"))
                .arg(generated()),
        )
        .context("the messages of proto/ cannot be generated for Python")?;
        Ok(python)
    }

    /// Runs the example against the target that these words name to `guestline-tests`, which is such a command, and checks
    /// what it prints.
    pub(crate) fn run_example(&self, mut suites: Command, target: &[&str]) -> anyhow::Result<()> {
        let outcome = check(
            suites
                .arg("example")
                .arg(example().join("expected.txt"))
                .args(target)
                .args([&self.interpreter, &example().join("example.py")])
                .env("PYTHONPATH", generated())
                .env("PYTHONDONTWRITEBYTECODE", "1"),
        );
        ensure!(
            outcome.is_ok(),
            "the Python example did not do what it should"
        );
        Ok(())
    }
}

/// A validator of OpenAPI documents: a program that takes a document's path.
pub(crate) fn openapi_validator() -> anyhow::Result<PathBuf> {
    let folder = venv("openapi", &root().join("tests/openapi/requirements.txt"))?;
    Ok(folder.join("bin/openapi-spec-validator"))
}

fn example() -> PathBuf {
    root().join("examples/python")
}

fn generated() -> PathBuf {
    target().join("guestline/python-generated")
}

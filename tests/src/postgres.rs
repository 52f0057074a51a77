//! A PostgreSQL server of a test's own: a new cluster in a temporary folder, on a Unix socket alone, gone with its value.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// PostgreSQL refuses to be root. `nobody` and `nogroup` are everywhere.
const UNPRIVILEGED: u32 = 65534;

/// To be up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running server.
pub struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// Makes a cluster and starts its server. That PostgreSQL is not installed is an error that says what to do.
    pub fn start() -> anyhow::Result<Self> {
        let programs =
            find_programs().context("no PostgreSQL server here: apt-get install postgresql")?;
        // Short, because a socket's path has at most 107 bytes, and open to the unprivileged user.
        let folder = tempfile::Builder::new()
            .prefix("guestline-pg-")
            .tempdir_in("/var/tmp")?;
        if is_root() {
            chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let data = folder.path().join("data");
        let made = unprivileged(&programs.join("initdb"))
            .args([
                "--auth=trust",
                "--username=postgres",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let server = Self::serve(&programs, folder.path())?;
        let this = Self {
            server,
            folder,
            programs,
        };
        this.wait()?;
        Ok(this)
    }

    fn serve(programs: &Path, folder: &Path) -> io::Result<Child> {
        unprivileged(&programs.join("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-k")
            .arg(folder)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
    }

    fn wait(&self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.psql("postgres", "SELECT 1").is_err() {
            if Instant::now() > end {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("PostgreSQL did not start: {log}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A new, empty database, as a URL.
    pub fn database(&self, name: &str) -> anyhow::Result<String> {
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        Ok(format!(
            "postgres://postgres@localhost/{name}?host={socket}"
        ))
    }

    /// All that a database holds, as text.
    pub fn dump(&self, name: &str) -> anyhow::Result<String> {
        let dump = Command::new(self.programs.join("pg_dump"))
            .args(self.connection(name))
            .output()?;
        ensure!(
            dump.status.success(),
            "pg_dump: {}",
            String::from_utf8_lossy(&dump.stderr)
        );
        Ok(String::from_utf8_lossy(&dump.stdout).into_owned())
    }

    /// Ends the server as `kill -9` does; its data stay.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        // SIGQUIT is PostgreSQL's immediate shutdown: its children end too, and the next start recovers.
        let killed = Command::new("kill")
            .args(["-QUIT", &self.server.id().to_string()])
            .status()?;
        ensure!(killed.success(), "cannot signal PostgreSQL");
        self.server.wait()?;
        Ok(())
    }

    /// Starts it again.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.server = Self::serve(&self.programs, self.folder.path())?;
        self.wait()
    }

    fn psql(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let output = Command::new(self.programs.join("psql"))
            .args(self.connection(database))
            .args(["--quiet", "--no-psqlrc", "--command", sql])
            .output()
            .context("cannot run psql")?;
        ensure!(
            output.status.success(),
            "psql: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn connection(&self, database: &str) -> [String; 3] {
        let host = self.folder.path().display();
        [
            format!("--host={host}"),
            "--username=postgres".into(),
            format!("--dbname={database}"),
        ]
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.crash();
    }
}

/// Of the newest version that is installed.
fn find_programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs
                .join("postgres")
                .exists()
                .then_some((version, programs))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = UNPRIVILEGED.to_string();
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(program);
    command
}

fn is_root() -> bool {
    // The owner of /proc/self is this process's user.
    fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

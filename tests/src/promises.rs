//! What the agent and the gateway promise, line by line, and where each line must be shown. Cases say which lines they show,
//! in their suite's `cases!` or `gateway_cases!`; unit tests that show one are listed here. `cargo xtask test` keeps what each of its steps printed, and
//! [`Table`] holds that against both: a line that nothing showed, or a test of it that did not run, is a failure.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use anyhow::Context;

use crate::{gateway, sdk, ssh, suites};

/// Where tests run. `switched` is a local agent that dies at steps; `sqlite` and what follows it is the gateway.
const PLACES: [&str; 11] = [
    "unit",
    "fuzz",
    "local",
    "switched",
    "minimal",
    "debian",
    "sqlite",
    "postgresql",
    "ssh",
    "ssh-machine",
    "sdk",
];

/// The targets of fuzz/, which show that a stranger's bytes do no harm.
const FUZZ_TARGETS: [&str; 7] = [
    "hello",
    "handshake",
    "requests",
    "accounts",
    "tar",
    "login",
    "sftp",
];
const FUZZED: &[u8] = &[30];

/// What Debian's programs show in a machine.
const OVER_SSH: &[u8] = &[40];

const EVERYWHERE: &[&str] = &["local", "minimal", "debian"];
const MACHINES: &[&str] = &["minimal", "debian"];
const BOTH: &[&str] = &["sqlite", "postgresql"];

/// A line of the promises.
struct Promise {
    says: &'static str,
    /// Where it must be shown; it may be in other places too.
    places: &'static [&'static str],
}

const fn promise(says: &'static str, places: &'static [&'static str]) -> Promise {
    Promise { says, places }
}

/// From line 1 on.
const PROMISES: [Promise; 41] = [
    promise(
        "a path is answered as the kernel answers its user",
        EVERYWHERE,
    ),
    promise(
        "nothing of root's processes is read, written or listed through /proc",
        EVERYWHERE,
    ),
    promise("what another has open is not reached", EVERYWHERE),
    promise("a write clears the setuid bit", EVERYWHERE),
    promise(
        "a link swapped in for a folder leads nobody further",
        EVERYWHERE,
    ),
    promise(
        "what never answers holds one call, until its deadline",
        EVERYWHERE,
    ),
    promise("files with false sizes are read whole", EVERYWHERE),
    promise(
        "a huge folder and names of any bytes are a stream",
        EVERYWHERE,
    ),
    promise(
        "a cut write leaves the old or the new content, whole",
        EVERYWHERE,
    ),
    promise(
        "a change of a user is seen by the next connection",
        MACHINES,
    ),
    promise(
        "what a user kills, stops or traces is the user's own",
        EVERYWHERE,
    ),
    promise("memory is bounded, however much is moved", EVERYWHERE),
    promise("a program is its user and nothing more", EVERYWHERE),
    promise("who does not become the user runs nothing", &["local"]),
    promise("who is no user gets a documented answer", EVERYWHERE),
    promise("daemons and fork bombs end with their program", MACHINES),
    promise("a background child holds no exit back", EVERYWHERE),
    promise(
        "exit codes and signals are exact, a lost connection is neither",
        EVERYWHERE,
    ),
    promise("a client that stops reading slows nobody else", EVERYWHERE),
    promise("all output comes before the exit", EVERYWHERE),
    promise("a terminal is one", EVERYWHERE),
    promise("programs leave nothing behind", EVERYWHERE),
    promise(
        "a detached program is found again with its output",
        EVERYWHERE,
    ),
    promise(
        "stdin that nobody writes or reads hides no exit",
        EVERYWHERE,
    ),
    promise(
        "a connection from within the guest is closed unheard",
        MACHINES,
    ),
    promise(
        "a machine with a secret refuses who does not know it",
        EVERYWHERE,
    ),
    promise("the agent's port is no user's to take", MACHINES),
    promise(
        "a flood of connections and headers keeps nobody out",
        EVERYWHERE,
    ),
    promise(
        "a broken handshake ends in time, and bytes behind a line are kept",
        &["unit", "local"],
    ),
    promise(
        "a stranger's bytes cause no panic and no memory",
        &["unit", "fuzz"],
    ),
    promise(
        "a user who eats memory or processes keeps nobody out",
        MACHINES,
    ),
    promise(
        "programs outlive the listener and are found again",
        EVERYWHERE,
    ),
    promise(
        "a paused or wrong clock is right again, calls go on or end",
        MACHINES,
    ),
    promise(
        "who may is who a live grant says, on every route",
        &["unit", "sqlite", "postgresql", "ssh"],
    ),
    promise(
        "what is revoked is refused at once, and cut on every gateway",
        &["sqlite", "postgresql", "ssh"],
    ),
    promise(
        "no secret is stored, logged, listed or dumped",
        &["sqlite", "postgresql", "ssh"],
    ),
    promise(
        "ungranted looks like unknown, and wakes nothing",
        &["unit", "sqlite", "postgresql", "ssh"],
    ),
    promise("a hundred requests are one wake, or one failure", BOTH),
    promise(
        "each operation has one start and one end in the log",
        &["unit", "sqlite", "postgresql"],
    ),
    promise(
        "Debian's SSH clients work as they come",
        &["ssh", "ssh-machine"],
    ),
    promise("a killed gateway loses and doubles no machine", &["sdk"]),
];

/// Unit tests that show lines: the name as cargo's test harness prints it.
const UNIT_TESTS: &[(&str, &[u8])] = &[
    ("proof::tests::a_host_without_the_secret_is_refused", &[26]),
    (
        "proof::tests::an_agent_without_the_secret_is_refused",
        &[26],
    ),
    ("proof::tests::nobody_between_changes_a_word_unseen", &[26]),
    ("proof::tests::a_proof_thrown_back_proves_nothing", &[26]),
    ("proof::tests::a_recorded_answer_is_of_no_use_later", &[26]),
    (
        "files::read::tests::a_file_of_proc_with_a_false_size_is_read_to_its_end",
        &[7],
    ),
    (
        "files::write::tests::the_old_content_is_there_until_the_new_one_is_whole",
        &[9],
    ),
    (
        "files::write::tests::an_aborted_write_leaves_the_old_content_and_nothing_else",
        &[9],
    ),
    (
        "tests::hostile::a_directory_that_is_swapped_for_a_link_meanwhile_leads_nowhere",
        &[5],
    ),
    (
        "listener::opening::tests::a_line_without_end_is_refused_at_its_bound",
        &[28],
    ),
    (
        "listener::opening::tests::half_a_line_and_an_end_is_closed_not_a_spin",
        &[28],
    ),
    (
        "listener::opening::tests::bytes_glued_behind_the_line_stay_in_the_socket",
        &[29],
    ),
    (
        "connect::tests::bytes_glued_behind_either_line_are_not_lost",
        &[29],
    ),
    (
        "connect::tests::a_vmm_that_refuses_or_babbles_is_a_typed_error",
        &[29],
    ),
    ("connect::tests::a_silent_peer_ends_at_the_deadline", &[29]),
    ("hello::tests::each_wrong_hello_says_what_is_wrong", &[30]),
    (
        "status::tests::a_detail_survives_the_trip_and_strangers_bytes_do_not_panic",
        &[30],
    ),
    (
        "listener::worker_socket::tests::junk_and_an_end_are_errors_not_panics",
        &[30],
    ),
    (
        "tests::hostile::no_stream_whatever_its_bytes_touches_what_is_outside",
        &[30],
    ),
    (
        "read::tests::an_extended_header_above_the_bound_is_refused_before_it_is_held",
        &[30],
    ),
    (
        "system::directory::tests::a_flood_is_cut_and_its_source_ended",
        &[30],
    ),
    (
        "system::services::export::tests::a_message_without_end_takes_no_memory",
        &[30],
    ),
    (
        "sessions::decide::tests::allowed_if_and_only_if_the_grant_says_so",
        &[34],
    ),
    ("http::tests::no_route_answers_without_a_credential", &[34]),
    (
        "http::tests::each_route_lets_a_token_do_what_its_grant_says_and_no_more",
        &[34],
    ),
    (
        "http::tests::an_unknown_vm_and_an_ungranted_one_look_the_same",
        &[37],
    ),
    (
        "http::tests::the_log_has_one_start_and_one_end_of_each_operation_and_no_secret",
        &[39],
    ),
    (
        "audit::tests::each_operation_has_one_start_and_one_end",
        &[39],
    ),
];

/// The tests that show something in a place, by the names that are printed of them.
fn tests_in(place: &str) -> Vec<(String, &'static [u8])> {
    match place {
        "unit" => {
            let named = UNIT_TESTS.iter();
            named
                .map(|(name, lines)| ((*name).into(), *lines))
                .collect()
        }
        "fuzz" => FUZZ_TARGETS
            .map(|target| (format!("fuzz::{target}"), FUZZED))
            .into(),
        "sqlite" | "postgresql" => {
            let cases = gateway::cases_on(place);
            cases.map(|(name, case)| (name, case.promises())).collect()
        }
        "ssh" => {
            let cases = ssh::cases();
            cases
                .map(|(name, _, case)| (name.into(), case.promises()))
                .collect()
        }
        "ssh-machine" => ssh::machine::names().map(|name| (name, OVER_SSH)).collect(),
        "sdk" => sdk::promises().collect(),
        _ => {
            let cases = suites::of(place).into_iter().flatten();
            cases
                .map(|case| (format!("{place}::{}", case.short_name()), case.promises))
                .collect()
        }
    }
}

/// The file that keeps what the tests of a place printed.
fn file_of(place: &str) -> &str {
    match place {
        "sqlite" | "postgresql" => "gateway",
        place => place,
    }
}

/// The tests of one line in one place.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    passed: usize,
    missed: usize,
}

/// What was shown, line by line.
#[derive(Debug)]
pub struct Table {
    shown: BTreeMap<(u8, &'static str), Shown>,
    failures: Vec<String>,
}

impl Table {
    /// Of what each step printed, kept in a file of the folder by the step's name.
    pub fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut table = Self {
            shown: BTreeMap::new(),
            failures: Vec::new(),
        };
        for place in PLACES {
            let path = folder.join(file_of(place));
            let printed = match fs::read_to_string(&path) {
                // The step did not come to its first line: all of its tests are missed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                read => read.with_context(|| format!("cannot read {}", path.display()))?,
            };
            table.add(place, &printed);
        }
        for (line, promise) in (1..).zip(&PROMISES) {
            for place in promise.places {
                if !table.shown.contains_key(&(line, place)) {
                    table
                        .failures
                        .push(format!("line {line}: no test of it in {place}"));
                }
            }
        }
        Ok(table)
    }

    fn add(&mut self, place: &'static str, printed: &str) {
        for (name, lines) in tests_in(place) {
            let passed = ["\n", " ("].map(|end| format!("test {name} ... ok{end}"));
            let passed = passed.iter().any(|line| printed.contains(line));
            for &line in lines {
                let shown = self.shown.entry((line, place)).or_default();
                if passed {
                    shown.passed += 1;
                } else {
                    shown.missed += 1;
                    let text = format!("line {line}: {name} did not run, or failed");
                    self.failures.push(text);
                }
            }
        }
    }

    /// Whether every line was shown wherever it must be.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }
}

/// As wide as the longest name of a place.
const COLUMN: usize = 11;

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = PROMISES.iter().map(|promise| promise.says.len()).max();
        let width = width.unwrap_or_default();
        write!(out, "line  {:width$}", "what must hold")?;
        for place in PLACES {
            write!(out, " {place:>COLUMN$}")?;
        }
        writeln!(out)?;
        for (line, promise) in (1..).zip(&PROMISES) {
            write!(out, "{line:>4}  {:width$}", promise.says)?;
            let (mut passed, mut missed) = (0, 0);
            for place in PLACES {
                let shown = self.shown.get(&(line, place)).copied();
                let text = match shown {
                    None => "-".into(),
                    Some(Shown { passed, missed: 0 }) => passed.to_string(),
                    Some(Shown { passed, missed }) => format!("{passed}/{}", passed + missed),
                };
                write!(out, " {text:>COLUMN$}")?;
                let shown = shown.unwrap_or_default();
                passed += shown.passed;
                missed += shown.missed;
            }
            let word = match (passed, missed) {
                (0, 0) => "not shown",
                (_, 0) => "passed",
                _ => "FAILED",
            };
            writeln!(out, "  {word}")?;
        }
        for failure in &self.failures {
            writeln!(out, "{failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_passed(place: &str) -> String {
        let tests = tests_in(place).into_iter();
        tests
            .map(|(name, _)| format!("test {name} ... ok\n"))
            .collect()
    }

    fn write_all(folder: &Path) {
        for place in PLACES {
            let file = folder.join(file_of(place));
            let before = fs::read_to_string(&file).unwrap_or_default();
            fs::write(file, before + &all_passed(place)).unwrap();
        }
    }

    #[test]
    fn each_line_has_a_test_in_each_place_and_one_that_did_not_run_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path());
        let table = Table::of(folder.path()).unwrap();
        assert!(table.holds(), "{table}");

        let printed =
            all_passed("debian").replace("closed_unheard ... ok", "closed_unheard ... FAILED");
        fs::write(folder.path().join("debian"), printed).unwrap();
        fs::remove_file(folder.path().join("minimal")).unwrap();
        let table = Table::of(folder.path()).unwrap();
        let told = table.to_string();
        assert!(
            !table.holds() && told.contains("line 25: debian::"),
            "{told}"
        );
        assert!(told.contains("line 4: minimal::isolation::"), "{told}");
    }

    #[test]
    fn what_was_shown_on_one_database_alone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path());
        fs::write(folder.path().join("gateway"), all_passed("sqlite")).unwrap();
        let told = Table::of(folder.path()).unwrap().to_string();
        for line in 34..=39 {
            let missed = format!("line {line}: gateway::postgresql::");
            assert!(told.contains(&missed), "{told}");
        }
        assert!(!told.contains("gateway::sqlite::"), "{told}");
    }

    #[test]
    fn no_test_shows_a_line_that_there_is_not() {
        let tests = PLACES.into_iter().flat_map(tests_in);
        for &line in tests.flat_map(|(_, lines)| lines) {
            assert!((1..=PROMISES.len()).contains(&usize::from(line)), "{line}");
        }
    }
}

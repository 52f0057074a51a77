//! Runs cases one after another on one target, and says how each went. A case that cannot run is a failure: nothing is
//! skipped in silence.

use std::{future::Future, pin::Pin, time::Duration};

use crate::target::Target;

/// The longest that a case may take under emulation, beside others that keep the machine busy.
const CASE_DEADLINE: Duration = Duration::from_secs(900);

/// What a case returns: an error says what was not as it should be.
pub type Outcome = anyhow::Result<()>;

/// A case, named after the behaviour it shows.
pub struct Case {
    /// The suite and the function's name.
    pub name: &'static str,
    /// The lines of the promises that it shows; see [`promises`](crate::promises).
    pub promises: &'static [u8],
    /// The case itself.
    pub run: for<'a> fn(&'a Target) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

impl Case {
    /// As it is printed behind the target's name.
    pub fn short_name(&self) -> &'static str {
        self.name.trim_start_matches("guestline_tests::suites::")
    }
}

/// Lists async functions as cases, each with the promises that it shows: `a_write_is_whole: [9]`.
#[macro_export]
macro_rules! cases {
    ($($name:ident $(: [$($promise:literal),+])?),* $(,)?) => {
        /// The cases of this suite.
        pub const CASES: &[$crate::runner::Case] = &[$($crate::runner::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            promises: &[$($($promise),+)?],
            run: |target| Box::pin($name(target)),
        }),*];
    };
}

/// How many went well and how many did not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Cases whose every line held.
    pub passed: usize,
    /// The others.
    pub failed: usize,
}

/// Runs the cases whose name contains `filter`.
pub async fn run(target: &Target, cases: &[Case], filter: &str) -> Tally {
    let mut tally = Tally::default();
    for case in cases {
        let name = case.short_name();
        if !name.contains(filter) {
            continue;
        }
        match outcome(target, case, CASE_DEADLINE).await {
            Ok(()) => {
                tally.passed += 1;
                println!("test {}::{name} ... ok", target.name());
            }
            Err(error) => {
                tally.failed += 1;
                println!("test {}::{name} ... FAILED\n    {error:#}", target.name());
            }
        }
    }
    tally
}

/// Runs one case, for as long as it may take.
pub async fn outcome(target: &Target, case: &Case, limit: Duration) -> Outcome {
    let result = tokio::time::timeout(limit, (case.run)(target)).await;
    result.unwrap_or_else(|_| Err(anyhow::anyhow!("did not end within {} s", limit.as_secs())))
}

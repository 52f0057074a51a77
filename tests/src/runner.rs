//! Runs cases one after another on one target, and says how each went. A case that cannot run is a failure: nothing is
//! skipped in silence.

use std::{future::Future, pin::Pin, time::Duration};

use crate::target::Target;

/// The longest that a case may take under emulation.
const CASE_DEADLINE: Duration = Duration::from_secs(120);

/// What a case returns: an error says what was not as it should be.
pub type Outcome = anyhow::Result<()>;

/// A case, named after the behaviour it shows.
pub struct Case {
    /// The suite and the function's name.
    pub name: &'static str,
    /// The case itself.
    pub run: for<'a> fn(&'a Target) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

/// Lists async functions as cases.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this suite.
        pub const CASES: &[$crate::runner::Case] = &[$($crate::runner::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
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
        let name = case.name.trim_start_matches("guestline_tests::suites::");
        if !name.contains(filter) {
            continue;
        }
        let result = match tokio::time::timeout(CASE_DEADLINE, (case.run)(target)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!(
                "did not end within {} s",
                CASE_DEADLINE.as_secs()
            )),
        };
        match result {
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

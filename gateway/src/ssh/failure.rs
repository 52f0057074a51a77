//! Why something over SSH does not work: a code for the audit log and the metrics, a text for the person at the other end.

pub(super) use crate::failure::full;

/// A failed operation.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Failure {
    /// Of what only SSH has.
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// The same words as over HTTP.
impl<T: Into<crate::failure::Failure>> From<T> for Failure {
    fn from(cause: T) -> Self {
        let failure = cause.into();
        Self::new(failure.code.as_str(), failure.text)
    }
}

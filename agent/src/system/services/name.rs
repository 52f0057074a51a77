//! Names and patterns that systemctl(1) takes for what they are, and for nothing else.

use std::fmt;

use super::ServiceError;

/// UNIT_NAME_MAX of systemd, less its NUL.
const MAX_NAME: usize = 255;

/// Units that are no services.
const OTHER_KINDS: [&str; 10] = [
    ".socket",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".path",
    ".timer",
    ".slice",
    ".scope",
];

/// The full name of a service, `.service` included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitName(String);

impl UnitName {
    /// "web" and "web.service" are the same.
    pub(crate) fn parse(name: &str) -> Result<Self, ServiceError> {
        let invalid = |why| Err(ServiceError::InvalidName(why));
        if name.is_empty() {
            return invalid("is empty");
        }
        if name.starts_with(['-', '.']) {
            return invalid("begins with '-' or '.'");
        }
        if !name.bytes().all(is_plain) {
            return invalid("may have a-z, A-Z, 0-9 and :-_.\\@ alone");
        }
        if OTHER_KINDS.iter().any(|kind| name.ends_with(kind)) {
            return invalid("is of a unit that is no service");
        }
        let full = match name.ends_with(".service") {
            true => name.to_owned(),
            false => format!("{name}.service"),
        };
        if full.len() > MAX_NAME {
            return invalid("is longer than 255 bytes");
        }
        if full.contains("@.") {
            return invalid("is that of a template; name an instance");
        }
        Ok(Self(full))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A glob over names, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<'a>(Option<&'a str>);

impl<'a> Pattern<'a> {
    /// Empty: all.
    pub(crate) fn parse(pattern: &'a str) -> Result<Self, ServiceError> {
        let plain = |byte: u8| is_plain(byte) || b"*?[]!^".contains(&byte);
        if pattern.len() > MAX_NAME || !pattern.bytes().all(plain) {
            let why = "may have at most 255 of a-z, A-Z, 0-9, :-_.\\@ and *?[]!^";
            return Err(ServiceError::InvalidPattern(why));
        }
        Ok(Self((!pattern.is_empty()).then_some(pattern)))
    }

    pub(super) fn arguments(&self) -> &[&'a str] {
        self.0.as_slice()
    }
}

/// VALID_CHARS of systemd's unit-name.c.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_options_paths_or_other_units_are_refused() {
        let long = "a".repeat(250);
        for name in [
            "",
            "-H",
            "--host=x",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "a\nb",
            "a\0",
            "é",
            "a.socket",
            "a@.service",
            "a@",
            &long,
            "*",
        ] {
            assert!(UnitName::parse(name).is_err(), "{name:?}");
        }
        assert_eq!(UnitName::parse("web").unwrap().as_str(), "web.service");
        for name in [
            "web.service",
            "a@b.service",
            "systemd-fsck@dev-disk\\x2d1.service",
        ] {
            assert_eq!(UnitName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_pattern_is_a_glob_and_nothing_else() {
        assert!(Pattern::parse("").unwrap().arguments().is_empty());
        assert_eq!(Pattern::parse("ssh*").unwrap().arguments(), ["ssh*"]);
        for pattern in ["a b", "a/b", "$(x)", "a\n"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern:?}");
        }
    }
}

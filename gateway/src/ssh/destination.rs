//! What stands before the `@`: `VM`, `VM+USER`, `VM:TOKEN`, `VM+USER:TOKEN`. Pure, and a stranger's bytes.

use std::fmt;

use guestline_client::Username;

/// Longer than any that names something: an id, a Linux user's name and a token.
const MAX_LENGTH: usize = 512;

/// Which VM, as which Linux user, and perhaps the secret that proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// What may be an id; whether it is one, the sessions decide.
    pub(crate) vm: String,
    pub(crate) user: Username,
    /// Whether the client is not to be asked for a secret.
    pub(crate) secret: Option<String>,
}

impl Destination {
    /// `None` for what names nobody. The secret begins after the first `:`, the user after the first `+` before that; no
    /// user is root.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name.len() > MAX_LENGTH {
            return None;
        }
        let (place, secret) = match name.split_once(':') {
            Some((place, secret)) => (place, Some(secret.to_owned())),
            None => (name, None),
        };
        let (vm, user) = match place.split_once('+') {
            Some((vm, user)) => (vm, Username::try_from(user).ok()?),
            None => (place, Username::root()),
        };
        Some(Self {
            vm: vm.into(),
            user,
            secret,
        })
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.vm, self.user.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<(String, String, Option<String>)> {
        let it = Destination::parse(name)?;
        Some((it.vm, it.user.as_str().into(), it.secret))
    }

    #[test]
    fn each_form_is_read() {
        let expect = |vm: &str, user: &str, secret: Option<&str>| {
            Some((vm.to_owned(), user.to_owned(), secret.map(str::to_owned)))
        };
        assert_eq!(parsed("vm"), expect("vm", "root", None));
        assert_eq!(parsed("vm+alice"), expect("vm", "alice", None));
        assert_eq!(parsed("vm:gl_x"), expect("vm", "root", Some("gl_x")));
        assert_eq!(parsed("vm+alice:gl_x"), expect("vm", "alice", Some("gl_x")));
        // A `+` in a secret is the secret's, and so is a second `:`.
        assert_eq!(parsed("vm:a+b:c"), expect("vm", "root", Some("a+b:c")));
        assert_eq!(parsed("vm:"), expect("vm", "root", Some("")));
        assert_eq!(parsed(""), expect("", "root", None));
    }

    #[test]
    fn what_names_no_linux_user_is_nobody() {
        for name in ["vm+", "vm+a b", "vm+\n", "vm+/", "+:"] {
            assert_eq!(parsed(name), None, "{name:?}");
        }
        assert_eq!(parsed(&"x".repeat(64 * 1024)), None);
    }

    #[test]
    fn a_secret_is_not_in_the_debug_text() {
        let it = Destination::parse("vm+alice:gl_secret").unwrap();
        assert!(!format!("{it:?}").contains("secret"));
    }

    /// Whatever is read, the parts are those of the text, and nothing panics.
    #[test]
    fn any_text_is_read_as_its_parts_or_not_at_all() {
        let alphabet = ["a", "+", ":", "é", "\0", "@", "\u{202e}", "root", "-", "9"];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut digits = state;
            for _ in 0..digits % 12 {
                digits /= 7;
                text.push_str(alphabet[(digits % 10) as usize]);
            }
            let Some((vm, user, secret)) = parsed(&text) else {
                continue;
            };
            assert!(!vm.contains([':', '+']), "{text:?}");
            let mut again = vec![vm.clone()];
            again.extend((user != "root").then(|| format!("{vm}+{user}")));
            again.push(format!("{vm}+{user}"));
            let tail = secret
                .map(|secret| format!(":{secret}"))
                .unwrap_or_default();
            assert!(
                again.iter().any(|start| format!("{start}{tail}") == text),
                "{text:?}"
            );
        }
    }
}

//! Strangers' words in logs and on terminals: no control character comes through, and none that turns the direction of a
//! line, so that neither a command line nor a path can command who reads of it.

/// JSON that means the same: serde_json leaves DEL, C1 and what is about direction as they are. They stand only in strings.
pub(crate) fn json(text: &str) -> String {
    escape(text, |c| format!("\\u{:04x}", u32::from(c)))
}

/// A text on one line.
pub(crate) fn text(text: &str) -> String {
    escape(text, |c| c.escape_default().to_string())
}

fn escape(text: &str, escaped: impl Fn(char) -> String) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{061c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => plain.push_str(&escaped(c)),
            c if c.is_control() => plain.push_str(&escaped(c)),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_comes_through() {
        assert_eq!(
            text("a\u{1b}[2J\n\u{9b}é\u{202e}"),
            "a\\u{1b}[2J\\n\\u{9b}é\\u{202e}"
        );
        assert_eq!(json("\"\u{7f}\u{85}é\""), "\"\\u007f\\u0085é\"");
    }
}

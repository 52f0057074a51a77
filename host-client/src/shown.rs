//! A stranger's bytes, fit to be shown to a person.

/// Bytes on one line: control characters, those that turn a line's direction and what is no UTF-8 become escapes, so that a
/// file's name cannot command the terminal.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                _ if is_printable(c) => text.push(c),
                _ => text.extend(c.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Whether a character is only shown: it is no control character, and does not make a line read in another order than it is.
pub fn is_printable(c: char) -> bool {
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(c.is_control() || turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_command_the_terminal() {
        let name = b"a\x1b]0;owned\x07\n\xff\xc2\x9b\xe2\x80\xaeb";
        let text = printable(name);
        assert_eq!(text, r"a\u{1b}]0;owned\u{7}\n\xff\u{9b}\u{202e}b");
        assert_eq!(printable(text.as_bytes()), text);
    }
}

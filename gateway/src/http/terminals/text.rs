//! What a terminal was written, as plain lines: without the sequences that move its cursor and colour its text (ECMA-48,
//! and those of xterm that carry a string).

/// The lines. Of output whose beginning is gone, the first is a part of one and is left out.
pub(super) fn lines(written: &[u8], is_cut: bool) -> Vec<String> {
    let plain = plain(&String::from_utf8_lossy(written));
    let mut lines: Vec<String> = plain.split('\n').map(overwritten).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if is_cut && !lines.is_empty() {
        lines.remove(0);
    }
    lines
}

/// A `\r` begins the line anew; what stood there is written over.
fn overwritten(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    line.rsplit('\r').next().unwrap_or_default().to_owned()
}

/// Without escape sequences and control characters, but for those that end lines and tabs.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            // The same in one character (C1).
            '\u{9b}' => skip_control(&mut rest),
            '\n' | '\r' | '\t' => plain.push(c),
            '\u{8}' => {
                if !plain.ends_with(['\n', '\r']) {
                    plain.pop();
                }
            }
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// What follows an ESC.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_control(rest),
        // OSC, DCS, SOS, PM, APC: a string up to BEL or ST, which is ESC and a backslash.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                match c {
                    '\u{7}' | '\u{9c}' => return,
                    '\u{1b}' => {
                        rest.next();
                        return;
                    }
                    _ => {}
                }
            }
        }
        // Intermediate bytes, and the final one.
        Some(' '..='/') => while let Some(' '..='/') = rest.next() {},
        _ => {}
    }
}

/// Parameters, and the final byte.
fn skip_control(rest: &mut std::str::Chars<'_>) {
    for c in rest.by_ref() {
        if ('@'..='~').contains(&c) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_titles_and_moves_are_left_out() {
        let written = "\u{1b}]0;title\u{7}\u{1b}[1;32mgreen\u{1b}[0m\tx\r\n\u{1b}(Bplain\u{1b}P1$r\u{1b}\\!\r\n";
        assert_eq!(lines(written.as_bytes(), false), ["green\tx", "plain!"]);
    }

    #[test]
    fn what_is_written_over_is_gone() {
        assert_eq!(lines(b"10 %\r20 %\r100 %\r\n", false), ["100 %"]);
        assert_eq!(lines(b"lx\x08s\r\n", false), ["ls"]);
    }

    #[test]
    fn the_rest_of_a_line_that_is_gone_is_no_line() {
        assert_eq!(lines(b"f of a line\r\nwhole\r\n$ ", true), ["whole", "$ "]);
        assert_eq!(lines(b"", true), [""; 0]);
    }

    #[test]
    fn a_sequence_without_an_end_takes_the_rest_and_no_more() {
        for written in [
            "a\u{1b}",
            "a\u{1b}[",
            "a\u{1b}[1;2",
            "a\u{1b}]x",
            "a\u{1b}(",
        ] {
            assert_eq!(lines(written.as_bytes(), false), ["a"], "{written:?}");
        }
        assert_eq!(lines(b"a\xffb", false), ["a\u{fffd}b"]);
    }
}

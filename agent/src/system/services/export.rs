//! The journal's export format (systemd.io/JOURNAL_EXPORT_FORMATS), which is exact where its JSON is not: a message is
//! bytes. Fed with pieces of any size; memory stays bounded however long a message is.
//!
//! ```text
//! KEY=value\n                    a field that is text
//! KEY\n<u64, little-endian>value\n    one that is not
//! \n                             the end of an entry
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest message that is passed on; the rest of a longer one is left out. journald itself breaks what services print
/// at 48 KiB.
const MAX_TEXT: usize = 48 * 1024;

/// A field's name, `=` and its value.
const MAX_FIELD: usize = MAX_TEXT + 64;

/// A line of a service's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) time: SystemTime,
    pub(crate) text: Vec<u8>,
    /// Of syslog(3), 0 to 7.
    pub(crate) priority: Option<u32>,
}

/// What was fed and is no whole entry yet.
#[derive(Debug)]
pub(super) struct Parser {
    state: State,
    /// Of the field that is being read, at most `MAX_FIELD`.
    value: Vec<u8>,
    entry: Entry,
}

#[derive(Debug)]
enum State {
    /// Up to a newline.
    Text,
    /// Of the length, its bytes so far.
    Length(String, Vec<u8>),
    /// How many bytes are to come, and the newline.
    Data(String, u64),
}

#[derive(Debug, Default)]
struct Entry {
    microseconds: Option<u64>,
    text: Option<Vec<u8>>,
    priority: Option<u32>,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            state: State::Text,
            value: Vec::new(),
            entry: Entry::default(),
        }
    }

    /// The entries that are whole now.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            bytes = match std::mem::replace(&mut self.state, State::Text) {
                State::Text => self.text(bytes, &mut lines),
                State::Length(key, length) => self.length(key, length, bytes),
                State::Data(key, left) => self.data(key, left, bytes),
            };
        }
        lines
    }

    fn text<'a>(&mut self, bytes: &'a [u8], lines: &mut Vec<Line>) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.keep(bytes);
            return &[];
        };
        self.keep(&bytes[..end]);
        let field = std::mem::take(&mut self.value);
        match field.iter().position(|&byte| byte == b'=') {
            _ if field.is_empty() => lines.extend(std::mem::take(&mut self.entry).into_line()),
            Some(at) => self.entry.put(&field[..at], &field[at + 1..]),
            None => {
                let key = String::from_utf8_lossy(&field).into_owned();
                self.state = State::Length(key, Vec::with_capacity(8));
            }
        }
        &bytes[end + 1..]
    }

    fn length<'a>(&mut self, key: String, mut length: Vec<u8>, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(8 - length.len()));
        length.extend(taken);
        self.state = match <[u8; 8]>::try_from(&length[..]) {
            Ok(whole) => State::Data(key, u64::from_le_bytes(whole)),
            Err(_) => State::Length(key, length),
        };
        rest
    }

    fn data<'a>(&mut self, key: String, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (data, rest) = bytes.split_at(taken);
        self.keep(data);
        let left = left - taken as u64;
        // The newline may not be there yet.
        let Some((_, rest)) = rest.split_first().filter(|_| left == 0) else {
            self.state = State::Data(key, left);
            return rest;
        };
        let value = std::mem::take(&mut self.value);
        self.entry.put(key.as_bytes(), &value);
        rest
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_FIELD - self.value.len();
        self.value.extend(&bytes[..bytes.len().min(room)]);
    }
}

impl Entry {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            b"__REALTIME_TIMESTAMP" => self.microseconds = number(),
            b"PRIORITY" => self.priority = number().and_then(|number| number.try_into().ok()),
            b"MESSAGE" => self.text = Some(value[..value.len().min(MAX_TEXT)].to_vec()),
            _ => {}
        }
    }

    /// `None` for an entry without a message, or what is none.
    fn into_line(self) -> Option<Line> {
        Some(Line {
            time: UNIX_EPOCH + Duration::from_micros(self.microseconds?),
            text: self.text?,
            priority: self.priority,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<u8> {
        let binary = b"\xffa\n=b\n";
        [
            &b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1500000\nPRIORITY=3\nMESSAGE=a = b\n\n"[..],
            b"__REALTIME_TIMESTAMP=2000000\nMESSAGE\n",
            &(binary.len() as u64).to_le_bytes(),
            binary,
            b"\n\n_BOOT_ID=1\n\n",
        ]
        .concat()
    }

    #[test]
    fn entries_are_the_same_in_whatever_pieces_they_come() {
        let whole = Parser::new().feed(&entries());
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].text, b"a = b");
        assert_eq!(whole[0].priority, Some(3));
        assert_eq!(whole[0].time, UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(whole[1].text, b"\xffa\n=b\n");
        for size in 1..12 {
            let mut parser = Parser::new();
            let pieces = entries();
            let lines: Vec<Line> = pieces
                .chunks(size)
                .flat_map(|piece| parser.feed(piece))
                .collect();
            assert_eq!(lines, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_without_end_takes_no_memory() {
        let mut parser = Parser::new();
        parser.feed(b"__REALTIME_TIMESTAMP=1\nMESSAGE\n");
        parser.feed(&u64::MAX.to_le_bytes());
        for _ in 0..100 {
            parser.feed(&[b'x'; 10_000]);
        }
        assert!(parser.value.len() <= MAX_FIELD);
        let mut parser = Parser::new();
        for _ in 0..100 {
            parser.feed(&[b'x'; 10_000]);
        }
        assert!(parser.value.len() <= MAX_FIELD);
    }
}

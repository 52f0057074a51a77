//! What goes to stdout: text that no guest can turn into terminal commands, and JSON.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::SystemTime,
};

pub(super) use guestline_client::printable;
use guestline_client::{FileType, Metadata, is_printable};
use serde_json::{Map, Value, json};

use super::failure::Failure;

pub(super) fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// Puts bytes under `key`: as text, and where that is not exact, also in hexadecimal under `key_hex`.
pub(super) fn put_bytes(object: &mut Map<String, Value>, key: &str, text: &OsStr) {
    object.insert(key.into(), json!(text.to_string_lossy()));
    if text.to_str().is_none() {
        object.insert(format!("{key}_hex"), json!(hex(text.as_bytes())));
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One JSON document and a newline.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print(format!("{}\n", escaped(&format!("{value:#}"))).as_bytes())
}

/// The same on one line, for documents that follow each other.
pub(super) fn print_json_line(value: &Value) -> Result<(), Failure> {
    print(format!("{}\n", escaped(&value.to_string())).as_bytes())
}

/// A list as one JSON document, written item by item: it may be longer than memory.
#[derive(Debug, Default)]
pub(super) struct JsonList {
    has_items: bool,
}

impl JsonList {
    pub(super) fn item(&mut self, out: &mut impl Write, value: &Value) -> io::Result<()> {
        let before = if self.has_items { "," } else { "[" };
        self.has_items = true;
        // In a string a line break is an escape: these stand between the item's own parts.
        let item = escaped(&format!("{value:#}")).replace('\n', "\n  ");
        write!(out, "{before}\n  {item}")
    }

    pub(super) fn end(self, out: &mut impl Write) -> io::Result<()> {
        let end = if self.has_items { "\n]\n" } else { "[]\n" };
        out.write_all(end.as_bytes())
    }
}

/// JSON that means the same, without the controls that serde_json leaves as they are: DEL, C1, and those of direction.
/// They can only stand within strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'.. if !is_printable(c) => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => text.push(c),
        }
    }
    text
}

/// All of it, now.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

pub(super) fn type_word(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character-device",
        FileType::BlockDevice => "block-device",
        _ => "unknown",
    }
}

/// As in `ls -l`: "-rwxr-sr-x".
pub(super) fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.file_type {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = metadata.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (metadata.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Attributes as JSON; times in seconds since the epoch.
pub(super) fn metadata_json(metadata: &Metadata) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    put("type", json!(type_word(metadata.file_type)));
    put("mode", json!(format!("{:04o}", metadata.mode)));
    put("uid", json!(metadata.uid));
    put("gid", json!(metadata.gid));
    put("size", json!(metadata.size));
    put("hard_links", json!(metadata.hard_links));
    put("inode", json!(metadata.inode));
    put("device", json!(metadata.device));
    put("blocks", json!(metadata.blocks));
    put("accessed", json!(seconds(metadata.accessed)));
    put("modified", json!(seconds(metadata.modified)));
    put("changed", json!(seconds(metadata.changed)));
    if let Some(target) = &metadata.link_target {
        put_bytes(&mut object, "link_target", target.as_os_str());
    }
    object
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// UTC, as in "2026-01-31 23:59:59".
pub(super) fn time_text(time: SystemTime) -> String {
    let seconds = seconds(time).floor() as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days: eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn json_commands_no_terminal_and_means_the_same() {
        let document = json!({"a\u{9b}": "\u{1b}\u{7f}\u{85}\u{202e}\u{61c}é\n"});
        for text in [format!("{document:#}"), document.to_string()] {
            let text = escaped(&text);
            assert!(text.contains(r#""a\u009b""#), "{text}");
            assert!(
                text.contains(r"\u001b\u007f\u0085\u202e\u061cé\n"),
                "{text}"
            );
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
        }
    }

    #[test]
    fn a_list_item_by_item_is_the_same_document() {
        let items = [json!({"a": "\n\u{9b}", "b": [1, {}]}), json!(2), json!([])];
        for count in 0..=items.len() {
            let (mut list, mut out) = (JsonList::default(), Vec::new());
            for item in &items[..count] {
                list.item(&mut out, item).unwrap();
            }
            list.end(&mut out).unwrap();
            let whole = format!("{}\n", escaped(&format!("{:#}", json!(items[..count]))));
            assert_eq!(String::from_utf8(out).unwrap(), whole);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_also_there_exactly() {
        let mut object = Map::new();
        put_bytes(&mut object, "name", OsStr::from_bytes(b"a\xff"));
        assert_eq!(
            Value::from(object),
            json!({"name": "a\u{fffd}", "name_hex": "61ff"})
        );
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds| time_text(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_767_225_599), "2025-12-31 23:59:59");
    }
}

//! The records of an extended header: `LENGTH KEYWORD=VALUE\n`, where LENGTH counts all of it, itself too.

use crate::{Error, entry::Time};

/// Adds a record.
pub(crate) fn put(records: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    // The space, `=` and the line's end.
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The keyword and value of each record. Values are bytes, a line's end among them too.
pub(crate) fn each<'a>(
    mut records: &'a [u8],
    mut receive: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    const MALFORMED: Error = Error::Malformed("an extended header that is none");
    while !records.is_empty() {
        let space = records.iter().position(|&byte| byte == b' ');
        let space = space.ok_or(MALFORMED)?;
        let length: usize = number(&records[..space]).ok_or(MALFORMED)?;
        let record = records.get(space + 1..length).ok_or(MALFORMED)?;
        let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
        let equals = record.iter().position(|&byte| byte == b'=');
        let equals = equals.ok_or(MALFORMED)?;
        receive(&record[..equals], &record[equals + 1..])?;
        records = &records[length..];
    }
    Ok(())
}

/// Decimal digits and nothing else.
pub(crate) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A time in seconds with a fraction, as records have it.
pub(crate) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds: i64 = number(whole)?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds: i64 = number(&digits.copied().collect::<Vec<u8>>())?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        // -1.25 is 0.75 after -2.
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// The text of a time, exact to the nanosecond.
pub(crate) fn time_text(time: Time) -> String {
    match time {
        Time {
            seconds,
            nanoseconds: 0,
        } => seconds.to_string(),
        Time {
            seconds,
            nanoseconds,
        } if seconds < 0 => {
            let (seconds, nanoseconds) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{seconds}.{nanoseconds:09}")
        }
        Time {
            seconds,
            nanoseconds,
        } => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_length_come_back_with_their_bytes() {
        for length in (0..120).chain(980..1010) {
            let value = vec![b'\n'; length];
            let mut records = Vec::new();
            put(&mut records, "path", &value);
            put(&mut records, "size", b"1");
            let mut seen = Vec::new();
            let each = each(&records, |keyword, value| {
                seen.push((keyword.to_vec(), value.to_vec()));
                Ok(())
            });
            each.unwrap();
            assert_eq!(
                seen,
                [(b"path".to_vec(), value), (b"size".to_vec(), b"1".to_vec())]
            );
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for wrong in [
            "x",
            "9",
            "99 a=b\n",
            "0 a=b\n",
            "2 a=b\n",
            "6 a=bc",
            "5 ab\n",
            "-6 a=b\n",
            "18446744073709551616 a=b\n",
            "6 a=b\n\0",
        ] {
            assert!(each(wrong.as_bytes(), |_, _| Ok(())).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_exact_before_and_after_1970() {
        let of = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds,
        };
        for (text, expected) in [
            ("0", of(0, 0)),
            ("1.5", of(1, 500_000_000)),
            ("-1.25", of(-2, 750_000_000)),
            ("-3", of(-3, 0)),
            ("7.0000000019", of(7, 1)),
        ] {
            assert_eq!(time(text.as_bytes()), Some(expected), "{text}");
            assert_eq!(time(time_text(expected).as_bytes()), Some(expected));
        }
        for wrong in ["", "-", ".5", "1.x", "1e3", "9223372036854775808", "--1"] {
            assert_eq!(time(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

//! Holes: where a file has data, and GNU tar's sparse format 1.0, in which the map of the extents goes before the data.

use std::{fs::File, io::Read};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use crate::{BLOCK, Error, error::broken, padding, record::number};

/// The most extents that a map has: 1 MiB of memory. A file in more pieces is packed with its later holes as zeros.
const MAX_EXTENTS: usize = 64 * 1024;

/// A part of a file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where a file of that size has data; `None` where it has no holes.
pub(crate) fn extents(file: &File, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while at < size {
        let data = match seek(file, at, Whence::SeekData) {
            Ok(data) => data.min(size),
            // Nothing but a hole from here on.
            Err(Errno::ENXIO) => break,
            // A file system that does not know.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if data == size {
            break;
        }
        let mut end = match seek(file, data, Whence::SeekHole) {
            Ok(end) => end.min(size),
            Err(Errno::ENXIO) => size,
            Err(errno) => return Err(errno),
        };
        if extents.len() + 2 == MAX_EXTENTS || end <= data {
            end = size;
        }
        extents.push(Extent {
            offset: data,
            length: end - data,
        });
        at = end;
    }
    let whole = Extent {
        offset: 0,
        length: size,
    };
    if size == 0 || extents == [whole] {
        return Ok(None);
    }
    if at < size || extents.is_empty() {
        // As GNU tar ends the map of a file that ends with a hole.
        extents.push(Extent {
            offset: size,
            length: 0,
        });
    }
    Ok(Some(extents))
}

fn seek(file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    // Never negative where it succeeds.
    Ok(lseek(file, offset, whence)?.unsigned_abs())
}

/// The map, as it goes before the data.
pub(crate) fn map(extents: &[Extent]) -> Vec<u8> {
    let mut map = format!("{}\n", extents.len()).into_bytes();
    for extent in extents {
        map.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.length).as_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

/// Reads the map of a file that has `size` bytes with its holes and `stored` ones in the stream, map included.
pub(crate) fn read_map(
    input: &mut impl Read,
    stored: u64,
    size: u64,
) -> Result<Vec<Extent>, Error> {
    const MALFORMED: Error = Error::Malformed("a sparse file's map is wrong");
    if size > i64::MAX as u64 {
        return Err(MALFORMED);
    }
    let mut numbers = Numbers {
        input,
        block: [0; BLOCK],
        at: BLOCK,
        read: 0,
        most: stored,
    };
    let count: usize = usize::try_from(numbers.next()?).map_err(|_| MALFORMED)?;
    if count > MAX_EXTENTS {
        return Err(Error::Malformed("a sparse file has more than 65,536 parts"));
    }
    let (mut extents, mut end, mut data) = (Vec::new(), 0, 0);
    for _ in 0..count {
        let (offset, length) = (numbers.next()?, numbers.next()?);
        if offset < end || offset > size || length > size - offset {
            return Err(MALFORMED);
        }
        end = offset + length;
        data += length;
        extents.push(Extent { offset, length });
    }
    if data != stored - numbers.read {
        return Err(MALFORMED);
    }
    Ok(extents)
}

/// Decimal numbers, each ended by a line's end, out of whole blocks.
struct Numbers<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
    /// Bytes taken so far.
    read: u64,
    /// Bytes that may be taken.
    most: u64,
}

impl<R: Read> Numbers<'_, R> {
    fn next(&mut self) -> Result<u64, Error> {
        const MALFORMED: Error = Error::Malformed("a sparse file's map is wrong");
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.read += BLOCK as u64;
                if self.read > self.most {
                    return Err(MALFORMED);
                }
                self.input.read_exact(&mut self.block).map_err(broken)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return number(&digits).ok_or(MALFORMED);
            }
            // No number is longer than u64's.
            if digits.len() == 20 {
                return Err(MALFORMED);
            }
            digits.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn a_map_comes_back_and_ends_on_a_block() {
        for count in [0, 1, 2, 100, 500] {
            let extents: Vec<_> = (0..count).map(|n| extent(n * 1000, 10)).collect();
            let map = map(&extents);
            assert_eq!(map.len() % BLOCK, 0);
            let stored = map.len() as u64 + count * 10;
            let read = read_map(&mut &map[..], stored, 1_000_000).unwrap();
            assert_eq!(read, extents);
        }
    }

    #[test]
    fn maps_that_lie_are_refused() {
        let of = |text: &str, data: u64, size| {
            let mut map = text.as_bytes().to_vec();
            map.resize(map.len() + padding(map.len() as u64), 0);
            read_map(&mut &map[..], map.len() as u64 + data, size).map(|it| it.len())
        };
        assert_eq!(of("1\n5\n10\n", 10, 20).unwrap(), 1);
        for (text, data, size) in [
            ("1\n5\n10\n", 9, 20),
            ("1\n5\n10\n", 10, 14),
            ("2\n5\n10\n4\n1\n", 11, 20),
            ("99999999\n", 0, 20),
            ("18446744073709551616\n", 0, 20),
            ("1\n18446744073709551615\n5\n", 5, 20),
            ("-1\n", 0, 20),
            ("1\n5\n", 0, 20),
            ("0\n", 0, u64::MAX),
        ] {
            assert!(of(text, data, size).is_err(), "{text:?}");
        }
    }

    #[test]
    fn holes_are_found_where_the_file_system_has_them() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"data", 512 * 1024).unwrap();
        let found = extents(&file, 1 << 20).unwrap();
        // What the kernel itself says of a hole at the start.
        let holes = seek(&file, 0, Whence::SeekData).unwrap() > 0;
        match found {
            Some(found) => {
                assert!(found[0].offset > 0 && found[0].offset <= 512 * 1024);
                assert_eq!(found.last(), Some(&extent(1 << 20, 0)));
            }
            None => assert!(!holes),
        }
        assert_eq!(extents(&tempfile::tempfile().unwrap(), 0).unwrap(), None);
    }
}

//! A tar stream, entry by entry. What is held of it is bounded, whatever it says.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::{
    Error,
    entry::{Attributes, Entry, Kind, Time},
    error::broken,
    padding,
    record::{self, number},
};

/// The longest extended header or long name: a path of 256 names and a link's text fit several times.
const MAX_EXTENDED: u64 = 256 * 1024;

/// Reads the entries of a stream. The data of an entry is read before the next one, or skipped.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    /// Data of the current entry that was not read yet.
    left: u64,
    padding: usize,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; `None` at the mark of the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                return match extended.any {
                    true => Err(Error::Malformed("an extended header of nothing")),
                    false => Ok(None),
                };
            };
            let size = header
                .entry_size()
                .map_err(|_| Error::Malformed("a size is no number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extended(size)?;
                    record::each(&records, |keyword, value| extended.take(keyword, value))?;
                }
                EntryType::GNULongName => extended.set_path(self.long_name(size)?),
                EntryType::GNULongLink => extended.set_link(self.long_name(size)?),
                // Defaults for what follows; none that we would use is ever in one.
                EntryType::XGlobalHeader => self.begin(size),
                _ => {
                    self.begin(extended.size.unwrap_or(size));
                    return extended.entry(&header, self.left).map(Some);
                }
            }
            extended.any |= header.entry_type() != EntryType::XGlobalHeader;
        }
    }

    /// Reads what comes after the end: a stream may be filled up to any length.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        io::copy(&mut self.input, &mut io::sink()).map_err(broken)?;
        Ok(())
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    /// A header block, after the rest of the entry before it.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let rest = self.left.saturating_add(self.padding as u64);
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink());
        if skipped.map_err(broken)? < rest {
            return Err(Error::CutShort);
        }
        (self.left, self.padding) = (0, 0);
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        self.input.read_exact(block).map_err(broken)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum is that of the block with spaces in its own place (at 148, 8 long).
        let sum = |from: &[u8]| from.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let expected = sum(&block[..148]) + sum(&block[156..]) + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(expected) {
            return Err(Error::Malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENDED {
            return Err(Error::Malformed("an extended header is above 256 KiB"));
        }
        self.begin(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(broken)?;
        Ok(content)
    }

    /// A name, ended by NUL.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.extended(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

/// The data of the current entry, to its end; a stream that ends earlier is an error.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What comes before an entry and says better what its header cannot.
#[derive(Debug, Default)]
struct Extended {
    any: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<Time>,
    sparse: Sparse,
}

#[derive(Debug, Default)]
struct Sparse {
    major: Option<u32>,
    minor: Option<u32>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn set_path(&mut self, path: Vec<u8>) {
        self.path = Some(path);
    }

    fn set_link(&mut self, link: Vec<u8>) {
        self.link = Some(link);
    }

    fn take(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), Error> {
        const MALFORMED: Error = Error::Malformed("an extended header has a number that is none");
        match keyword {
            b"path" => self.set_path(value.to_vec()),
            b"linkpath" => self.set_link(value.to_vec()),
            b"size" => self.size = Some(number(value).ok_or(MALFORMED)?),
            b"uid" => self.uid = Some(number(value).ok_or(MALFORMED)?),
            b"gid" => self.gid = Some(number(value).ok_or(MALFORMED)?),
            b"mtime" => self.modified = Some(record::time(value).ok_or(MALFORMED)?),
            b"GNU.sparse.major" => self.sparse.major = Some(number(value).ok_or(MALFORMED)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number(value).ok_or(MALFORMED)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.sparse.size = Some(number(value).ok_or(MALFORMED)?),
            // The older formats keep the map in the header, without bound.
            other if other.starts_with(b"GNU.sparse.") => {
                return Err(Error::Malformed("a sparse file not in the format 1.0"));
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(self, header: &Header, stored: u64) -> Result<Entry, Error> {
        let path = self.path.unwrap_or_else(|| header.path_bytes().into());
        let link = self
            .link
            .or_else(|| header.link_name_bytes().map(Into::into));
        let sparse = match self.sparse {
            Sparse {
                major: None, minor, ..
            } if minor.is_none() => None,
            Sparse {
                major: Some(1),
                minor: Some(0),
                name: Some(name),
                size: Some(size),
            } => Some((name, size)),
            _ => return Err(Error::Malformed("a sparse file not in the format 1.0")),
        };
        // Before POSIX, a name with a slash at its end was a directory's.
        let old_directory = header.as_ustar().is_none() && path.ends_with(b"/");
        let (path, kind) = match (header.entry_type(), sparse) {
            (EntryType::Regular | EntryType::Continuous, Some((name, size))) => {
                (name, Kind::SparseFile(size))
            }
            (EntryType::Regular, None) if old_directory => (path, Kind::Directory),
            (EntryType::Regular | EntryType::Continuous, None) => (path, Kind::File),
            (EntryType::Directory, _) => (path, Kind::Directory),
            (EntryType::Symlink, _) => (path, Kind::Symlink(link.unwrap_or_default())),
            (EntryType::Link, _) => (path, Kind::HardLink(link.unwrap_or_default())),
            (EntryType::Char | EntryType::Block | EntryType::Fifo, _) => (path, Kind::Special),
            (EntryType::GNUSparse, _) => {
                return Err(Error::Malformed("a sparse file not in the format 1.0"));
            }
            _ => return Err(Error::Malformed("an entry of a kind that is not known")),
        };
        let modified = match self.modified {
            Some(modified) => modified,
            None => header_time(header)?,
        };
        let mode = header.mode();
        let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
        let attributes = Attributes {
            mode: mode.map_err(|_| Error::Malformed("a mode is no number"))? & 0o7777,
            uid: self.uid.or_else(|| id(header.uid())),
            gid: self.gid.or_else(|| id(header.gid())),
            modified,
        };
        Ok(Entry {
            path,
            kind,
            attributes,
            stored,
        })
    }
}

fn header_time(header: &Header) -> Result<Time, Error> {
    let seconds = header.mtime();
    let seconds = seconds.map_err(|_| Error::Malformed("a time is no number"))?;
    Ok(Time {
        // GNU tar writes times before 1970 in two's complement.
        seconds: seconds.cast_signed(),
        nanoseconds: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path("name").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn next(stream: &[u8]) -> Result<Option<Entry>, Error> {
        Reader::new(stream).next()
    }

    #[test]
    fn the_end_is_a_mark_and_not_where_the_bytes_end() {
        assert!(next(&[0; 1024]).unwrap().is_none());
        for cut in [0, 1, 511] {
            assert!(matches!(next(&vec![0; cut]), Err(Error::CutShort)), "{cut}");
        }
        let mut stream = block(EntryType::Regular, 700);
        stream.resize(512 + 700, b'x');
        let mut reader = Reader::new(&stream[..]);
        assert_eq!(reader.next().unwrap().unwrap().stored, 700);
        assert!(matches!(reader.next(), Err(Error::CutShort)));
    }

    #[test]
    fn an_extended_header_above_the_bound_is_refused_before_it_is_held() {
        for kind in [
            EntryType::XHeader,
            EntryType::GNULongName,
            EntryType::GNULongLink,
        ] {
            let stream = block(kind, MAX_EXTENDED + 1);
            assert!(matches!(next(&stream), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn a_block_whose_checksum_is_wrong_is_no_header() {
        let mut stream = block(EntryType::Regular, 0);
        stream[0] ^= 1;
        assert!(matches!(next(&stream), Err(Error::Malformed(_))));
        assert!(matches!(next(&[b'x'; 512]), Err(Error::Malformed(_))));
    }

    #[test]
    fn long_names_of_gnu_tar_are_read() {
        let mut stream = block(EntryType::GNULongName, 301);
        stream.extend_from_slice(&[b'n'; 300]);
        stream.resize(1024, 0);
        stream.extend_from_slice(&block(EntryType::Regular, 0));
        assert_eq!(next(&stream).unwrap().unwrap().path, [b'n'; 300]);
    }

    #[test]
    fn sparse_files_of_other_formats_are_refused_by_name() {
        let stream = block(EntryType::GNUSparse, 0);
        assert!(matches!(next(&stream), Err(Error::Malformed(text)) if text.contains("sparse")));
    }
}

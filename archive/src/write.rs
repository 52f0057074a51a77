//! The headers of a stream: a ustar block, and records before it for what does not fit into one.

use std::{io, io::Write};

use tar::{EntryType, Header};

use crate::{BLOCK, entry::Attributes, padding, record};

/// What the fields of a ustar header hold in octal.
const MAX_ID: u32 = 0o7_777_777;
const MAX_NUMBER: u64 = 0o77_777_777_777;

/// What a header says.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) kind: EntryType,
    pub(crate) path: &'a [u8],
    /// Of a link, where it leads.
    pub(crate) link: &'a [u8],
    pub(crate) attributes: Attributes,
    /// Bytes of data that follow.
    pub(crate) stored: u64,
    /// Of a sparse file, its size with the holes.
    pub(crate) sparse: Option<u64>,
}

/// Writes the header of an entry.
pub(crate) fn head(output: &mut impl Write, head: &Head<'_>) -> io::Result<()> {
    let records = records(head);
    let mut header = Header::new_ustar();
    if !records.is_empty() {
        let mut name = b"PaxHeaders/".to_vec();
        name.extend_from_slice(head.path);
        put_name(&mut header, &name);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        output.write_all(header.as_bytes())?;
        output.write_all(&records)?;
        pad(output, records.len() as u64)?;
        header = Header::new_ustar();
    }
    let Attributes {
        mode,
        uid,
        gid,
        modified,
    } = head.attributes;
    match head.sparse {
        // Readers that do not know the format get this name.
        Some(_) => put_name(&mut header, &[b"GNUSparseFile.0/", head.path].concat()),
        None => put_name(&mut header, head.path),
    }
    let link = &mut header.as_old_mut().linkname;
    let length = head.link.len().min(link.len());
    link[..length].copy_from_slice(&head.link[..length]);
    header.set_entry_type(head.kind);
    header.set_mode(mode);
    header.set_uid(uid.unwrap_or(0).min(MAX_ID).into());
    header.set_gid(gid.unwrap_or(0).min(MAX_ID).into());
    header.set_mtime(u64::try_from(modified.seconds).unwrap_or(0).min(MAX_NUMBER));
    header.set_size(head.stored);
    header.set_cksum();
    output.write_all(header.as_bytes())
}

/// Fills up the last block of so much data.
pub(crate) fn pad(output: &mut impl Write, size: u64) -> io::Result<()> {
    output.write_all(&[0; BLOCK][..padding(size)])
}

/// The mark of the end: two blocks of zeros.
pub(crate) fn end(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 2 * BLOCK])
}

fn put_name(header: &mut Header, path: &[u8]) {
    let name = &mut header.as_old_mut().name;
    let length = path.len().min(name.len());
    name[..length].copy_from_slice(&path[..length]);
}

fn records(head: &Head<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let Attributes {
        uid, gid, modified, ..
    } = head.attributes;
    let name_size = Header::new_ustar().as_old().name.len();
    match head.sparse {
        Some(size) => {
            record::put(&mut records, "GNU.sparse.major", b"1");
            record::put(&mut records, "GNU.sparse.minor", b"0");
            record::put(&mut records, "GNU.sparse.name", head.path);
            record::put(
                &mut records,
                "GNU.sparse.realsize",
                size.to_string().as_bytes(),
            );
        }
        None if head.path.len() > name_size => record::put(&mut records, "path", head.path),
        None => {}
    }
    if head.link.len() > name_size {
        record::put(&mut records, "linkpath", head.link);
    }
    for (keyword, id) in [("uid", uid), ("gid", gid)] {
        if let Some(id) = id.filter(|&id| id > MAX_ID) {
            record::put(&mut records, keyword, id.to_string().as_bytes());
        }
    }
    let fits = u64::try_from(modified.seconds).is_ok_and(|seconds| seconds <= MAX_NUMBER);
    if !fits || modified.nanoseconds != 0 {
        record::put(
            &mut records,
            "mtime",
            record::time_text(modified).as_bytes(),
        );
    }
    if head.stored > MAX_NUMBER {
        record::put(&mut records, "size", head.stored.to_string().as_bytes());
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::{Entry, Kind, Time},
        read::Reader,
    };

    fn back(given: &Head<'_>) -> Entry {
        let mut stream = Vec::new();
        head(&mut stream, given).unwrap();
        assert_eq!(stream.len() % BLOCK, 0);
        Reader::new(&stream[..]).next().unwrap().unwrap()
    }

    #[test]
    fn what_no_ustar_header_holds_comes_back() {
        let attributes = Attributes {
            mode: 0o4755,
            uid: Some(u32::MAX - 1),
            gid: Some(0o7_777_777),
            modified: Time {
                seconds: -5,
                nanoseconds: 1,
            },
        };
        let long = [&[b'a'; 150], &b"/\xff\n"[..]].concat();
        for path in [&b"short"[..], &[b'b'; 100], &[b'c'; 101], &long] {
            for link in [&b"x"[..], &long] {
                let entry = back(&Head {
                    kind: EntryType::Symlink,
                    path,
                    link,
                    attributes,
                    stored: 0,
                    sparse: None,
                });
                assert_eq!((&entry.path[..], entry.attributes), (path, attributes));
                assert_eq!(entry.kind, Kind::Symlink(link.into()));
            }
        }
        let large = back(&Head {
            kind: EntryType::Regular,
            path: b"large",
            link: b"",
            attributes,
            stored: 1 << 40,
            sparse: None,
        });
        assert_eq!((large.stored, large.kind), (1 << 40, Kind::File));
        let sparse = back(&Head {
            kind: EntryType::Regular,
            path: &long,
            link: b"",
            attributes,
            stored: 512,
            sparse: Some(1 << 50),
        });
        assert_eq!(
            (sparse.path, sparse.kind),
            (long, Kind::SparseFile(1 << 50))
        );
    }
}

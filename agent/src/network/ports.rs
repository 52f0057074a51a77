//! Who listens: the kernel's tables of sockets, read line by line, so that what they hold besides listeners costs no
//! memory. The formats are those of proc(5), `/proc/net/tcp` and `/proc/net/unix`.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::{
    error::PortsError,
    owners::{self, Owner},
};
use crate::sys::errno_of;

/// TCP_LISTEN of the kernel's net/tcp_states.h.
const TCP_LISTEN: &[u8] = b"0A";
/// __SO_ACCEPTCON of net/unix.h, the flag of a socket that listens.
const SO_ACCEPTCON: u32 = 1 << 16;
/// SOCK_STREAM, as the table writes it.
const SOCK_STREAM: &[u8] = b"0001";

/// How many of the table's lines share one look at all processes.
const BATCH: usize = 512;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    /// As it was given to bind(2).
    Unix(Vec<u8>),
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: Address,
    /// The table of Unix sockets does not say whose they are.
    pub(crate) uid: Option<u32>,
    /// `None` where this user may not see it.
    pub(crate) owner: Option<Owner>,
}

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    address: Address,
    uid: Option<u32>,
    inode: u64,
}

type Parse = fn(&[u8]) -> Option<Entry>;

/// Gives what listens to `take`, until that says no.
pub(crate) fn listening(mut take: impl FnMut(Port) -> bool) -> Result<(), PortsError> {
    let tables: [(&str, Parse); 3] = [
        ("/proc/self/net/tcp", parse_tcp),
        ("/proc/self/net/tcp6", parse_tcp),
        ("/proc/self/net/unix", parse_unix),
    ];
    let mut batch = Vec::with_capacity(BATCH);
    for (table, parse) in tables {
        let table = Path::new(table);
        let failed = |error: io::Error| PortsError {
            table,
            source: errno_of(&error),
        };
        let lines = match File::open(table) {
            // A kernel without that family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => BufReader::new(opened.map_err(failed)?).split(b'\n'),
        };
        for line in lines {
            batch.extend(parse(&line.map_err(failed)?));
            if batch.len() == BATCH && !give(&mut batch, &mut take) {
                return Ok(());
            }
        }
    }
    give(&mut batch, &mut take);
    Ok(())
}

fn give(batch: &mut Vec<Entry>, take: &mut impl FnMut(Port) -> bool) -> bool {
    let inodes: HashSet<u64> = batch.iter().map(|entry| entry.inode).collect();
    let owners = owners::find(&inodes);
    batch.drain(..).all(|entry| {
        let owner = owners.get(&entry.inode).cloned();
        take(Port {
            address: entry.address,
            uid: entry.uid.or(owner.as_ref().map(|owner| owner.uid)),
            owner,
        })
    })
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, of both families.
fn parse_tcp(line: &[u8]) -> Option<Entry> {
    let mut fields = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let local = fields.nth(1)?;
    if fields.nth(1)? != TCP_LISTEN {
        return None;
    }
    Some(Entry {
        address: Address::Tcp(parse_socket(local)?),
        uid: Some(number(fields.nth(3)?, 10)?),
        inode: std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?,
    })
}

/// An address in hexadecimal words of 32 bits, each in the machine's own byte order, then `:` and the port.
fn parse_socket(field: &[u8]) -> Option<SocketAddr> {
    let (address, port) = field.split_at_checked(field.len().checked_sub(5)?)?;
    let port = number(port.strip_prefix(b":")?, 16)?;
    let words = address.chunks(8).map(|word| number(word, 16));
    let words = words.collect::<Option<Vec<u32>>>()?;
    let address: IpAddr = match *words.as_slice() {
        [word] => Ipv4Addr::from(word.to_ne_bytes()).into(),
        [a, b, c, d] => {
            let bytes = [a, b, c, d].map(u32::to_ne_bytes);
            Ipv6Addr::from_octets(bytes.concat().try_into().ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port.try_into().ok()?))
}

/// `Num RefCount Protocol Flags Type St Inode Path`; the path is all that follows one space.
fn parse_unix(line: &[u8]) -> Option<Entry> {
    let fields = &mut line.splitn(2, |&byte| byte == b':').nth(1)?;
    let _count = field(fields)?;
    let _protocol = field(fields)?;
    let flags = number(field(fields)?, 16)?;
    let kind = field(fields)?;
    let _state = field(fields)?;
    let inode = std::str::from_utf8(field(fields)?).ok()?.parse().ok()?;
    let path = fields.strip_prefix(b" ")?;
    // `@` is how the table shows the NUL that an abstract name begins with: it has no path.
    if flags & SO_ACCEPTCON == 0 || kind != SOCK_STREAM || path.starts_with(b"@") {
        return None;
    }
    Some(Entry {
        address: Address::Unix(path.into()),
        uid: None,
        inode,
    })
}

/// The next word, behind the spaces before it.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b' ');
    let (word, behind) = text.split_at(end.unwrap_or(text.len()));
    *rest = behind;
    (!word.is_empty()).then_some(word)
}

fn number(text: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::ffi::OsStrExt, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn a_table_of_tcp_is_read_as_the_kernel_writes_it() {
        let line = b"   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0";
        let entry = Entry {
            address: Address::Tcp("127.0.0.1:8080".parse().unwrap()),
            uid: Some(1000),
            inode: 4242,
        };
        assert_eq!(parse_tcp(line), Some(entry));
        let line = b"   0: 000080FE000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0000000000000000 100 0 0 10 0";
        let address = parse_tcp(line).unwrap().address;
        assert_eq!(address, Address::Tcp("[fe80::1]:80".parse().unwrap()));
        let connected = b"   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1";
        for other in [&connected[..], b"  sl  local_address rem_address   st", b""] {
            assert_eq!(parse_tcp(other), None);
        }
    }

    #[test]
    fn a_table_of_unix_sockets_is_read_as_the_kernel_writes_it() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 31415 /run/my app.sock";
        let entry = Entry {
            address: Address::Unix(b"/run/my app.sock".into()),
            uid: None,
            inode: 31415,
        };
        assert_eq!(parse_unix(line), Some(entry));
        for other in [
            &b"0000000000000000: 00000002 00000000 00010000 0001 01 31415 @/tmp/abstract"[..],
            b"0000000000000000: 00000003 00000000 00000000 0001 03 31415 /run/connected",
            b"0000000000000000: 00000002 00000000 00010000 0005 01 31415 /run/seqpacket",
            b"0000000000000000: 00000003 00000000 00000000 0001 03 31415",
            b"Num       RefCount Protocol Flags    Type St Inode Path",
        ] {
            assert_eq!(parse_unix(other), None);
        }
    }

    #[test]
    fn this_process_is_the_owner_of_what_it_listens_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = [
            Address::Tcp(tcp.local_addr().unwrap()),
            Address::Unix(path.as_os_str().as_bytes().into()),
        ];
        let mut found = Vec::new();
        listening(|port| {
            if wanted.contains(&port.address) {
                found.push(port);
            }
            true
        })
        .unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(found.len(), 2);
        for port in found {
            let owner = port.owner.expect("our own process");
            assert_eq!(
                (owner.pid, port.uid),
                (std::process::id() as i32, Some(uid))
            );
            assert!(!owner.program.is_empty());
        }
    }
}

//! Who listens: TCP from the kernel's tables of sockets (proc(5), `/proc/net/tcp`), read line by line, so that what they
//! hold besides listeners costs no memory; Unix sockets from the kernel's list, because in their table a user can make up lines.

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
use crate::sys::{
    errno_of,
    socket_diag::{UnixListener, UnixListeners},
};

/// TCP_LISTEN of the kernel's net/tcp_states.h.
const TCP_LISTEN: &[u8] = b"0A";

/// How many listeners share one look at all processes.
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
    /// Who made it. The kernel's list of Unix sockets says so since Linux 5.3.
    pub(crate) uid: Option<u32>,
    /// `None` where this user may not see it.
    pub(crate) owner: Option<Owner>,
}

/// A listener as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    address: Address,
    uid: Option<u32>,
    inode: u64,
}

/// Gives what listens to `take`, until that says no. Unix sockets are left out where the kernel does not list them.
pub(crate) fn listening(mut take: impl FnMut(Port) -> bool) -> Result<(), PortsError> {
    let mut batch = Vec::with_capacity(BATCH);
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let failed = |error: io::Error| PortsError::Table {
            table: Path::new(table),
            source: errno_of(&error),
        };
        let lines = match File::open(table) {
            // A kernel without that family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => BufReader::new(opened.map_err(failed)?).split(b'\n'),
        };
        for line in lines {
            batch.extend(parse_tcp(&line.map_err(failed)?));
            if batch.len() == BATCH && !give(&mut batch, &mut take) {
                return Ok(());
            }
        }
    }
    let unix = UnixListeners::ask().map_err(PortsError::List)?;
    for listener in unix.into_iter().flatten() {
        batch.extend(of_unix(listener.map_err(PortsError::List)?));
        if batch.len() == BATCH && !give(&mut batch, &mut take) {
            return Ok(());
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
            uid: entry.uid,
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

/// `None` for what is no stream, and for an abstract name, which is no path.
fn of_unix(listener: UnixListener) -> Option<Entry> {
    (listener.is_stream && !listener.name.starts_with(b"\0")).then_some(Entry {
        address: Address::Unix(listener.name),
        uid: listener.uid,
        inode: listener.inode,
    })
}

fn number(text: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::TcpListener,
        os::{
            linux::net::SocketAddrExt,
            unix::{ffi::OsStrExt, net},
        },
    };

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
    fn only_unix_streams_with_a_path_are_ports() {
        let listener = UnixListener {
            inode: 31415,
            is_stream: true,
            name: b"/run/my app.sock".into(),
            uid: Some(1000),
        };
        let entry = Entry {
            address: Address::Unix(listener.name.clone()),
            uid: Some(1000),
            inode: 31415,
        };
        assert_eq!(of_unix(listener.clone()), Some(entry));
        let abstract_name = b"\0/tmp/abstract".into();
        for other in [
            UnixListener {
                is_stream: false,
                ..listener.clone()
            },
            UnixListener {
                name: abstract_name,
                ..listener
            },
        ] {
            assert_eq!(of_unix(other), None);
        }
    }

    #[test]
    fn a_name_that_looks_like_a_line_of_the_table_is_a_name() {
        let folder = tempfile::tempdir().unwrap();
        // In `/proc/net/unix`, the second line of each would be a listener of its own.
        let line = "\n0000000000000000: 00000002 00000000 00010000 0001 01 12345 ";
        let directory = folder.path().join(format!("a{line}"));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("forged");
        let _of_a_path = net::UnixListener::bind(&path).unwrap();
        let name = net::SocketAddr::from_abstract_name(format!("a{line}/forged")).unwrap();
        let _of_an_abstract_name = net::UnixListener::bind_addr(&name).unwrap();
        let mut found = Vec::new();
        listening(|port| {
            match port.address {
                Address::Unix(path) if path.ends_with(b"/forged") => found.push(path),
                _ => {}
            }
            true
        })
        .unwrap();
        assert_eq!(found, [path.as_os_str().as_bytes()]);
    }

    #[test]
    fn this_process_is_the_owner_of_what_it_listens_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _unix = net::UnixListener::bind(&path).unwrap();
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

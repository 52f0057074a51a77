//! The kernel's own list of Unix sockets, by netlink (sock_diag(7)). Each name has its length there, so that no name is taken
//! for a line of a table: in /proc/net/unix one with a line break is, and any user can make one.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h, the type of request and answer.
const BY_FAMILY: u16 = 20;

/// Bit TCP_LISTEN of net/tcp_states.h, which Unix sockets use too.
const LISTENING: u32 = 1 << 10;

/// UDIAG_SHOW_NAME and UDIAG_SHOW_UID (Linux 5.3) of linux/unix_diag.h, and the attributes that are the answer.
const SHOW: u32 = 0x1 | 0x40;
const NAME: u16 = 0;
const UID: u16 = 7;

/// A message's head, and that of an attribute (netlink(7)).
const MESSAGE_HEAD: usize = 16;
const ATTRIBUTE_HEAD: usize = 4;

/// struct unix_diag_msg: family, type, state, padding; inode; a cookie.
const UNIX_HEAD: usize = 16;

/// The kernel makes parts of at most so much, whatever room it is given.
const PART: usize = 32 << 10;

/// A Unix socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnixListener {
    pub(crate) inode: u64,
    pub(crate) is_stream: bool,
    /// As it was given to bind(2), of a path without the NUL behind it. Abstract names begin with NUL.
    pub(crate) name: Vec<u8>,
    /// Who made the socket.
    pub(crate) uid: Option<u32>,
}

/// All Unix sockets that listen. What begins or ends meanwhile may be missing.
#[derive(Debug)]
pub(crate) struct UnixListeners {
    netlink: OwnedFd,
    received: std::vec::IntoIter<UnixListener>,
    is_last: bool,
}

impl UnixListeners {
    /// `None` where the kernel has no such list (`CONFIG_UNIX_DIAG`).
    pub(crate) fn ask() -> Result<Option<Self>, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkSockDiag;
        let netlink = match socket(AddressFamily::Netlink, SockType::Raw, flags, protocol) {
            Err(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => return Ok(None),
            netlink => netlink?,
        };
        // Not connected, it goes to the kernel, and nobody else's user may send here (netlink(7)).
        send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
        match receive(&netlink) {
            Ok((received, is_last)) => Ok(Some(Self {
                netlink,
                received: received.into_iter(),
                is_last,
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Iterator for UnixListeners {
    type Item = Result<UnixListener, Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(listener) = self.received.next() {
                return Some(Ok(listener));
            }
            if self.is_last {
                return None;
            }
            match receive(&self.netlink) {
                Ok((received, is_last)) => {
                    (self.received, self.is_last) = (received.into_iter(), is_last);
                }
                Err(errno) => {
                    self.is_last = true;
                    return Some(Err(errno));
                }
            }
        }
    }
}

/// struct nlmsghdr and struct unix_diag_req, in the machine's own byte order.
fn request() -> Vec<u8> {
    const UNIX_REQUEST: usize = 24;
    let length = (MESSAGE_HEAD + UNIX_REQUEST) as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let any = u32::MAX;
    [
        &length.to_ne_bytes()[..],
        &BY_FAMILY.to_ne_bytes(),
        &flags.to_ne_bytes(),
        // Sequence number and sender, which a single question leaves to the kernel.
        &[0; 8],
        // Family, protocol, padding.
        &[libc::AF_UNIX as u8, 0, 0, 0],
        &LISTENING.to_ne_bytes(),
        // Inode, cookie: those of one socket, and here of none.
        &0u32.to_ne_bytes(),
        &SHOW.to_ne_bytes(),
        &any.to_ne_bytes(),
        &any.to_ne_bytes(),
    ]
    .concat()
}

/// The next part of the answer, and whether it is the last.
fn receive(netlink: &OwnedFd) -> Result<(Vec<UnixListener>, bool), Errno> {
    let mut part = vec![0; PART];
    let length = loop {
        match recv(netlink.as_raw_fd(), &mut part, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            length => break length?,
        }
    };
    parse(part.get(..length).ok_or(Errno::EMSGSIZE)?)
}

fn parse(part: &[u8]) -> Result<(Vec<UnixListener>, bool), Errno> {
    let mut listeners = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let length = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let length = length.ok_or(Errno::EBADMSG)? as usize;
        let kind = number(rest, 4).ok_or(Errno::EBADMSG)?;
        let body = rest.get(MESSAGE_HEAD..length).ok_or(Errno::EBADMSG)?;
        match i32::from(kind) {
            libc::NLMSG_DONE => return status(body).map(|()| (listeners, true)),
            libc::NLMSG_ERROR => {
                status(body)?;
                return Err(Errno::EBADMSG);
            }
            _ if kind == BY_FAMILY => listeners.extend(listener(body)?),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok((listeners, false))
}

/// The negative errno that an error and the end begin with, or 0.
fn status(body: &[u8]) -> Result<(), Errno> {
    match body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(errno) if errno < 0 => Err(Errno::from_raw(-errno)),
        _ => Ok(()),
    }
}

/// `None` of a socket without a name.
fn listener(body: &[u8]) -> Result<Option<UnixListener>, Errno> {
    let (head, mut attributes) = body.split_at_checked(UNIX_HEAD).ok_or(Errno::EBADMSG)?;
    let inode = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    let (mut name, mut uid) = (None, None);
    while !attributes.is_empty() {
        let length = number(attributes, 0).ok_or(Errno::EBADMSG)?.into();
        let kind = number(attributes, 2).ok_or(Errno::EBADMSG)?;
        let value = attributes.get(ATTRIBUTE_HEAD..length);
        let value = value.ok_or(Errno::EBADMSG)?;
        match kind {
            NAME => name = Some(value),
            UID => uid = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(name.map(|name| UnixListener {
        inode: inode.into(),
        is_stream: i32::from(head[1]) == libc::SOCK_STREAM,
        name: match name.split_last() {
            Some((0, path)) if !name.starts_with(b"\0") => path.into(),
            _ => name.into(),
        },
        uid,
    }))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Messages and attributes begin at multiples of 4.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (MESSAGE_HEAD + body.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (ATTRIBUTE_HEAD + value.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn unix(kind: u8, inode: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![1, kind, 10, 0];
        body.extend(inode.to_ne_bytes());
        body.extend([0xff; 8]);
        body.extend(attributes.concat());
        message(BY_FAMILY, &body)
    }

    #[test]
    fn an_answer_is_read_as_the_kernel_writes_it() {
        let uid = attribute(UID, &1000u32.to_ne_bytes());
        let part = [
            unix(1, 7, &[attribute(NAME, b"/run/a\nb\0"), uid]),
            unix(5, 8, &[attribute(NAME, b"\0abstract\0")]),
            unix(1, 9, &[attribute(4, &[0; 8])]),
        ]
        .concat();
        let (found, is_last) = parse(&part).unwrap();
        let stream = UnixListener {
            inode: 7,
            is_stream: true,
            name: b"/run/a\nb".into(),
            uid: Some(1000),
        };
        let packets = UnixListener {
            inode: 8,
            is_stream: false,
            name: b"\0abstract\0".into(),
            uid: None,
        };
        assert_eq!((found, is_last), (vec![stream, packets], false));
        let end = message(libc::NLMSG_DONE as u16, &[0; 4]);
        assert_eq!(parse(&end), Ok((Vec::new(), true)));
    }

    #[test]
    fn an_error_is_one_and_what_is_cut_off_is_no_answer() {
        let error = (-libc::ENOENT).to_ne_bytes();
        for kind in [libc::NLMSG_ERROR, libc::NLMSG_DONE] {
            let part = message(kind as u16, &error);
            assert_eq!(parse(&part), Err(Errno::ENOENT));
        }
        let whole = unix(1, 7, &[attribute(NAME, b"/run/abc")]);
        for length in 1..whole.len() {
            assert_eq!(parse(&whole[..length]), Err(Errno::EBADMSG), "{length}");
        }
        let mut long = whole.clone();
        // The name's length, of more than there is.
        long[MESSAGE_HEAD + UNIX_HEAD] = 0xff;
        assert_eq!(parse(&long), Err(Errno::EBADMSG));
        let mut none = whole;
        none[..4].fill(0);
        assert_eq!(parse(&none), Err(Errno::EBADMSG));
    }
}

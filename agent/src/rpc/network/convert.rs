//! Between the messages of the Network service and the values of the domain, errors too.

use std::{
    ffi::OsStr,
    net::IpAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use guestline_proto::v1::{self, ErrorReason, ForwardOpen, TcpTarget, forward_open};

use crate::{
    network::{Address, ConnectError, Port, PortsError, StreamError},
    rpc::status::Failure,
};

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp {
        /// `None`: the guest's loopback.
        address: Option<IpAddr>,
        port: u16,
    },
    Unix(PathBuf),
}

/// Relative paths start at `home`.
pub(super) fn target(open: ForwardOpen, home: &Path) -> Result<Target, Failure> {
    match open.target {
        None => Err(invalid("target is missing")),
        Some(forward_open::Target::Tcp(TcpTarget { address, port })) => Ok(Target::Tcp {
            address: match address.as_str() {
                "" => None,
                text => Some(literal(text)?),
            },
            port: match u16::try_from(port) {
                Ok(port @ 1..) => port,
                _ => return Err(invalid("port is not one of 1 to 65535")),
            },
        }),
        Some(forward_open::Target::Unix(path)) if path.is_empty() || path.contains(&0) => {
            Err(invalid("unix is empty, or has a NUL byte"))
        }
        Some(forward_open::Target::Unix(path)) => {
            Ok(Target::Unix(home.join(OsStr::from_bytes(&path))))
        }
    }
}

/// Names are not looked up: the guest's resolver would be asked by us, and not by the user's own program.
fn literal(text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| {
        invalid("address is not a literal IPv4 or IPv6 address, and names are not looked up")
    })
}

fn invalid(text: &str) -> Failure {
    Failure::invalid("forward", text)
}

pub(super) fn port(port: Port) -> v1::Port {
    let (address, number, path) = match port.address {
        Address::Tcp(address) => (
            address.ip().to_string(),
            address.port().into(),
            Vec::default(),
        ),
        Address::Unix(path) => (String::new(), 0, path),
    };
    let (pid, program) = match port.owner {
        Some(owner) => (owner.pid, owner.program),
        None => (0, Vec::new()),
    };
    v1::Port {
        address,
        port: number,
        uid: port.uid,
        pid,
        program: program.into(),
        path: path.into(),
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let text = error.to_string();
        match error {
            ConnectError::Tcp { source, .. } => Self {
                text,
                ..Self::kernel("connect", Vec::new(), source)
            },
            ConnectError::NoAnswer { .. } => {
                Self::refused(ErrorReason::DeadlineExceeded, "connect", text)
            }
            ConnectError::Unix { path, source } => {
                Self::kernel("connect", path.into_os_string().into_vec(), source)
            }
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Read(errno) => Self::kernel("read", Vec::new(), errno),
            StreamError::Write(errno) => Self::kernel("write", Vec::new(), errno),
        }
    }
}

impl From<PortsError> for Failure {
    fn from(error: PortsError) -> Self {
        match error {
            PortsError::Table { table, source } => {
                Self::kernel("read", table.as_os_str().as_bytes(), source)
            }
            PortsError::List(errno) => Self::kernel("netlink", Vec::new(), errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, port: u32) -> Result<Target, ErrorReason> {
        let address = address.into();
        parse(forward_open::Target::Tcp(TcpTarget { address, port }))
    }

    fn parse(wire: forward_open::Target) -> Result<Target, ErrorReason> {
        let target = Some(wire);
        let home = Path::new("/home/alice");
        super::target(ForwardOpen { target }, home).map_err(|failure| failure.reason)
    }

    #[test]
    fn targets_are_literal_addresses_ports_and_paths() {
        let loopback = Target::Tcp {
            address: None,
            port: 80,
        };
        assert_eq!(tcp("", 80), Ok(loopback));
        let address = Some("::1".parse().unwrap());
        let port = 65535;
        assert_eq!(tcp("::1", 65535), Ok(Target::Tcp { address, port }));
        let unix = |path: &'static [u8]| parse(forward_open::Target::Unix(path.into()));
        assert_eq!(
            unix(b"app.sock"),
            Ok(Target::Unix("/home/alice/app.sock".into()))
        );
        assert_eq!(
            unix(b"/run/app.sock"),
            Ok(Target::Unix("/run/app.sock".into()))
        );
        for wrong in [
            tcp("localhost", 80),
            tcp("[::1]", 80),
            tcp("1.2.3", 80),
            tcp("", 0),
            tcp("", 65536),
            unix(b""),
            unix(b"a\0b"),
        ] {
            assert_eq!(wrong, Err(ErrorReason::InvalidArgument));
        }
    }

    #[test]
    fn a_refused_connection_says_where_and_with_which_errno() {
        let failure = Failure::from(ConnectError::Tcp {
            to: "127.0.0.1:81".parse().unwrap(),
            source: nix::errno::Errno::ECONNREFUSED,
        });
        assert_eq!(
            (failure.reason, failure.errno, failure.operation),
            (ErrorReason::Errno, 111, "connect")
        );
        assert!(failure.text.contains("127.0.0.1:81"), "{}", failure.text);
    }
}

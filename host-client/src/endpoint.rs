//! How the host reaches an agent, as people write it: `vsock:3`, `hybrid:/run/vm.sock:777`, `unix:/tmp/agent.sock`.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};

use guestline_proto::DEFAULT_PORT;
use thiserror::Error;

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The host's own AF_VSOCK: `vsock:CID[:PORT]`.
    Vsock {
        /// The guest's context id.
        cid: u32,
        /// The agent's port.
        port: u32,
    },
    /// A Unix socket of the VMM that takes `CONNECT port`, as those of Firecracker, Cloud Hypervisor and
    /// vhost-device-vsock do: `hybrid:PATH[:PORT]`.
    Hybrid {
        /// The VMM's socket.
        path: PathBuf,
        /// The agent's port in the guest.
        port: u32,
    },
    /// A Unix socket of the agent itself, for development and tests: `unix:PATH`.
    Unix {
        /// The agent's socket.
        path: PathBuf,
    },
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseEndpointError {
    /// No scheme that we know.
    #[error("an endpoint is vsock:CID[:PORT], hybrid:PATH[:PORT] or unix:PATH, not {0:?}")]
    Scheme(String),
    /// Not a context id.
    #[error("the CID of a vsock endpoint is a number from 1 to 4294967294, not {0:?}")]
    Cid(String),
    /// Not a port.
    #[error("a vsock port is a number from 0 to 4294967294, not {0:?}")]
    Port(String),
    /// Nothing after the scheme.
    #[error("the endpoint {0:?} names no socket")]
    NoPath(String),
}

impl Endpoint {
    /// Where whoever makes machines may leave a machine's secret: beside its socket, as `SOCKET.secret`. `None`: it has no
    /// socket of its own.
    pub fn secret_file(&self) -> Option<PathBuf> {
        let (Self::Hybrid { path, .. } | Self::Unix { path }) = self else {
            return None;
        };
        let mut beside = OsString::from(path);
        beside.push(".secret");
        Some(beside.into())
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| ParseEndpointError::Scheme(text.into()))?;
        match scheme {
            "vsock" => parse_vsock(rest),
            "hybrid" => parse_hybrid(text, rest),
            "unix" if rest.is_empty() => Err(ParseEndpointError::NoPath(text.into())),
            "unix" => Ok(Self::Unix { path: rest.into() }),
            _ => Err(ParseEndpointError::Scheme(text.into())),
        }
    }
}

fn parse_vsock(rest: &str) -> Result<Endpoint, ParseEndpointError> {
    let (cid, port) = match rest.split_once(':') {
        Some((cid, port)) => (cid, parse_port(port)?),
        None => (rest, DEFAULT_PORT),
    };
    match cid.parse() {
        // 0 is the hypervisor, u32::MAX is VMADDR_CID_ANY: neither is a guest.
        Ok(number) if number != 0 && number != u32::MAX => {
            Ok(Endpoint::Vsock { cid: number, port })
        }
        _ => Err(ParseEndpointError::Cid(cid.into())),
    }
}

/// A path may hold colons itself: only a number after the last one is a port.
fn parse_hybrid(text: &str, rest: &str) -> Result<Endpoint, ParseEndpointError> {
    let (path, port) = match rest.rsplit_once(':') {
        Some((path, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (path, parse_port(port)?)
        }
        _ => (rest, DEFAULT_PORT),
    };
    if path.is_empty() {
        return Err(ParseEndpointError::NoPath(text.into()));
    }
    Ok(Endpoint::Hybrid {
        path: path.into(),
        port,
    })
}

fn parse_port(text: &str) -> Result<u32, ParseEndpointError> {
    match text.parse() {
        Ok(port) if port != u32::MAX => Ok(port),
        _ => Err(ParseEndpointError::Port(text.into())),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Hybrid { path, port } => write!(f, "hybrid:{}:{port}", path.display()),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_comes_back_as_it_was_written() {
        for text in [
            "vsock:3:777",
            "hybrid:/run/vm.sock:1024",
            "unix:/tmp/a:b.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_port_may_be_left_out() {
        assert_eq!(
            "vsock:3".parse(),
            Ok(Endpoint::Vsock {
                cid: 3,
                port: DEFAULT_PORT
            })
        );
        let odd = Endpoint::Hybrid {
            path: "/run/a:b.sock".into(),
            port: DEFAULT_PORT,
        };
        assert_eq!("hybrid:/run/a:b.sock".parse(), Ok(odd));
    }

    #[test]
    fn each_wrong_form_says_what_is_wrong() {
        let error = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert!(matches!(error(""), ParseEndpointError::Scheme(_)));
        assert!(matches!(error("/run/x"), ParseEndpointError::Scheme(_)));
        assert!(matches!(error("tcp:1:2"), ParseEndpointError::Scheme(_)));
        for cid in [
            "vsock:",
            "vsock:x",
            "vsock:0",
            "vsock:-1",
            "vsock:4294967295",
        ] {
            assert!(matches!(error(cid), ParseEndpointError::Cid(_)), "{cid}");
        }
        for port in [
            "vsock:3:",
            "vsock:3:x",
            "vsock:3:4294967295",
            "hybrid:/x:99999999999",
        ] {
            assert!(matches!(error(port), ParseEndpointError::Port(_)), "{port}");
        }
        for path in ["unix:", "hybrid:", "hybrid::777"] {
            assert!(
                matches!(error(path), ParseEndpointError::NoPath(_)),
                "{path}"
            );
        }
    }
}

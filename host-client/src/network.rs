//! What listens in the guest: streams to it, and who it is.

mod stream;

use std::{
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use guestline_proto::{
    MAX_MESSAGE_SIZE,
    v1::{self, ForwardOpen, TcpTarget, forward_open, network_client::NetworkClient},
};

use crate::{Error, Vm, channel::Channel, pages::collect};

pub use stream::ForwardStream;

/// The sockets of a VM, as the user of the [`Vm`] it came from.
#[derive(Clone, Debug)]
pub struct Network {
    vm: Vm,
}

/// What a stream goes to, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardTarget {
    /// A TCP port.
    Tcp {
        /// `None`: the guest's own loopback, 127.0.0.1 and then ::1.
        address: Option<IpAddr>,
        /// 1 to 65535.
        port: u16,
    },
    /// The path of a Unix stream socket; a relative one starts at the user's home.
    Unix(PathBuf),
}

impl From<u16> for ForwardTarget {
    /// A port of the guest's loopback.
    fn from(port: u16) -> Self {
        Self::Tcp {
            address: None,
            port,
        }
    }
}

impl From<SocketAddr> for ForwardTarget {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp {
            address: Some(address.ip()),
            port: address.port(),
        }
    }
}

impl From<&Path> for ForwardTarget {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                address: None,
                port,
            } => write!(f, "port {port}"),
            Self::Tcp {
                address: Some(address),
                port,
            } => SocketAddr::new(*address, *port).fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortAddress {
    /// A TCP port, perhaps of all addresses: 0.0.0.0 or ::.
    Tcp(SocketAddr),
    /// A Unix stream socket's path, as its owner gave it to bind(2).
    Unix(PathBuf),
}

/// A listening socket of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Where.
    pub address: PortAddress,
    /// Whose; absent where the kernel does not say.
    pub uid: Option<u32>,
    /// The process that holds it, if the user may see it.
    pub pid: Option<i32>,
    /// That process's name, of at most 15 bytes; empty where there is no `pid`.
    pub program: OsString,
}

impl Network {
    pub(crate) fn new(vm: Vm) -> Self {
        Self { vm }
    }

    fn client(&self) -> NetworkClient<Channel> {
        NetworkClient::new(self.vm.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// A byte stream to what listens there, connected in the guest by the user's own worker.
    ///
    /// A target that refuses is an [`Error::Operation`] with connect(2)'s errno: ECONNREFUSED where nobody listens, EACCES
    /// and ENOENT for a Unix socket's path. Never repeated by itself.
    pub async fn forward(&self, target: impl Into<ForwardTarget>) -> Result<ForwardStream, Error> {
        let target = match target.into() {
            ForwardTarget::Tcp { address, port } => forward_open::Target::Tcp(TcpTarget {
                address: address.map_or_else(String::new, |address| address.to_string()),
                port: port.into(),
            }),
            ForwardTarget::Unix(path) => {
                forward_open::Target::Unix(path.into_os_string().into_vec().into())
            }
        };
        let open = ForwardOpen {
            target: Some(target),
        };
        ForwardStream::begin(self.vm.clone(), self.client(), open).await
    }

    /// Who listens: TCP ports, and Unix stream sockets that have a path. At most 131,072, and 32 MiB of them,
    /// [`Error::ListTooLong`] otherwise.
    pub async fn ports(&self) -> Result<Vec<Port>, Error> {
        let answer = self.client().list_ports(v1::ListPortsRequest {}).await;
        let pages = answer.map_err(|status| self.vm.error(status))?.into_inner();
        collect(&self.vm, pages).await
    }
}

impl TryFrom<v1::Port> for Port {
    type Error = Error;

    fn try_from(wire: v1::Port) -> Result<Self, Error> {
        let wrong = || Error::Protocol(format!("a port of {:?}:{}", wire.address, wire.port));
        let address = match wire.port {
            0 => PortAddress::Unix(OsString::from_vec(wire.path.into()).into()),
            port => PortAddress::Tcp(SocketAddr::new(
                wire.address.parse().map_err(|_| wrong())?,
                port.try_into().map_err(|_| wrong())?,
            )),
        };
        Ok(Self {
            address,
            uid: wire.uid,
            pid: (wire.pid != 0).then_some(wire.pid),
            program: OsString::from_vec(wire.program.into()),
        })
    }
}

//! The guest's sockets as the worker's user has them: a connection to one that listens ([`connect`], [`connection`]), and
//! who listens at all ([`ports`], [`owners`]). Called by `rpc::network`.

mod connect;
mod connection;
mod error;
mod owners;
mod ports;

pub(crate) use connect::{connect_tcp, connect_unix};
pub(crate) use connection::{Connection, MAX_READ};
pub(crate) use error::{ConnectError, PortsError, StreamError};
pub(crate) use ports::{Address, Port, listening};

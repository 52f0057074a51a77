//! Listening, with or without TLS, until the end: no new connection then, and the old ones have a while.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use axum::Router;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// How long a client may take for its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how to listen.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// What is still under way so long after the end was asked for is cut.
    pub(crate) drain: Duration,
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The server cannot serve.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot use the certificate {certificate} with the key {key}")]
    Tls {
        certificate: PathBuf,
        key: PathBuf,
        source: io::Error,
    },
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

/// Serves until `stop` and the drain after it. Tells the address that it listens on, which the system may have chosen.
pub(crate) async fn serve(
    config: ServerConfig,
    router: Router,
    stop: CancellationToken,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServerError> {
    let address = config.address;
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let handle = Handle::new();
    let (drainer, drain) = (handle.clone(), config.drain);
    tokio::spawn(async move {
        stop.cancelled().await;
        drainer.graceful_shutdown(Some(drain));
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match config.tls {
        Some(tls) => {
            let Tls { certificate, key } = tls;
            let loaded = RustlsConfig::from_pem_file(&certificate, &key).await;
            let rustls = loaded.map_err(|source| ServerError::Tls {
                certificate,
                key,
                source,
            })?;
            listening(local);
            let mut server = axum_server::from_tcp_rustls(listener, rustls)
                .map_err(ServerError::Serve)?
                .handle(handle);
            bound_headers(server.http_builder());
            server.serve(service).await.map_err(ServerError::Serve)
        }
        None => {
            listening(local);
            let mut server = axum_server::from_tcp(listener)
                .map_err(ServerError::Serve)?
                .handle(handle);
            bound_headers(server.http_builder());
            server.serve(service).await.map_err(ServerError::Serve)
        }
    }
}

fn bound_headers(builder: &mut Builder<TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
}

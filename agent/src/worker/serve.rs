//! The gRPC server of one user: which connections, with which limits. HTTP/2 is hyper's and the calls are tonic's generated
//! services; tonic's own server, between the two, would bring HTTP/1 and a router into every guest.

use guestline_proto::http2::{
    CONNECTION_WINDOW, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, STREAM_WINDOW,
};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    pin,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{handed::HandedSocket, routes::Routes, serving::Served};
use crate::switches;

/// A peer's request headers: ours take some hundred bytes.
const MAX_HEADER_LIST: u32 = 16 * 1024;

fn max_header_list() -> u32 {
    match switches::is_off("bound on headers") {
        true => u32::MAX,
        false => MAX_HEADER_LIST,
    }
}

/// Serves the sockets that come, until `draining` says that the connections are to be told to go (GOAWAY) and the last
/// of them has gone.
pub(super) async fn serve(
    served: Served,
    mut sockets: mpsc::Receiver<HandedSocket>,
    mut draining: oneshot::Receiver<()>,
) {
    let routes = Routes::of(served).await;
    let (going, go) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // What was handed over before the end is served, and then told to go.
            socket = sockets.recv() => match socket {
                Some(socket) => drop(connections.spawn(connection(socket, routes.clone(), go.clone()))),
                None => break,
            },
            _ = &mut draining => break,
            Some(_) = connections.join_next() => {}
        }
    }
    drop((going, go));
    while connections.join_next().await.is_some() {}
}

/// Until either side ends it; from the moment that `going` is closed on, until its calls have ended.
async fn connection(socket: HandedSocket, routes: Routes, mut going: watch::Receiver<()>) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_SIZE)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(max_header_list())
        .serve_connection(TokioIo::new(socket), routes);
    pin!(connection);
    // How a connection ends is its peer's business: no error of it is ours.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = going.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

//! The gRPC server of one user: which services, with which limits.

use std::sync::Arc;

use guestline_proto::{
    FILE_DESCRIPTOR_SET, MAX_MESSAGE_SIZE,
    http2::{CONNECTION_WINDOW, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, STREAM_WINDOW},
    v1::{
        files_server::FilesServer, network_server::NetworkServer,
        processes_server::ProcessesServer, system_server::SystemServer,
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{service::interceptor::InterceptedService, transport::Server};

use super::handed::HandedSocket;
use crate::{
    control::Services,
    processes::ProcessRegistry,
    rpc::{FilesService, NetworkService, ProcessesService, SystemService, switched_on},
    system::accounts::Account,
};

/// A peer's request headers: ours take some hundred bytes.
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// Serves the sockets that come, until `draining` says that the connections are to be told to go (GOAWAY) and the last
/// of them has gone.
pub(super) async fn serve(
    account: Arc<Account>,
    services: Services,
    registry: ProcessRegistry,
    sockets: mpsc::Receiver<HandedSocket>,
    draining: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let files = FilesServer::new(FilesService::new(account.home.clone()));
    let files = files.max_decoding_message_size(MAX_MESSAGE_SIZE);
    let processes = ProcessesServer::new(ProcessesService::new(Arc::clone(&account), registry));
    let processes = processes.max_decoding_message_size(MAX_MESSAGE_SIZE);
    let system = SystemServer::new(SystemService::new(account));
    let network = NetworkServer::new(NetworkService);

    let (health, health_server) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were compiled with this binary");

    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_SIZE)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .add_service(InterceptedService::new(files, switched_on(services.files)))
        .add_service(InterceptedService::new(
            processes,
            switched_on(services.processes),
        ))
        .add_service(InterceptedService::new(
            system,
            switched_on(services.system),
        ))
        .add_service(InterceptedService::new(
            network,
            switched_on(services.network),
        ))
        .add_service(health_server)
        .add_service(reflection)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(sockets).map(Ok::<_, std::io::Error>),
            async {
                // A worker that drops its end is ending, and needs no grace.
                let _ = draining.await;
            },
        )
        .await
}

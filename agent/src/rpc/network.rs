//! guestline.v1.Network: in the contract, not in this agent yet.

use guestline_proto::v1::{
    ForwardRequest, ForwardResponse, ListPortsRequest, ListPortsResponse, network_server::Network,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use super::not_yet;

/// Streams to what listens in the guest.
#[derive(Debug)]
pub(crate) struct NetworkService;

#[tonic::async_trait]
impl Network for NetworkService {
    type ForwardStream = Empty<Result<ForwardResponse, Status>>;

    async fn forward(
        &self,
        _: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(not_yet("forward"))
    }

    async fn list_ports(
        &self,
        _: Request<ListPortsRequest>,
    ) -> Result<Response<ListPortsResponse>, Status> {
        Err(not_yet("list ports"))
    }
}

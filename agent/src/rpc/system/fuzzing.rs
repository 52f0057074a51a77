//! For fuzz/: the messages of System, as far as values of the domain.

use guestline_proto::v1::{
    CreateServiceRequest, FreezeRequest, MetricsRequest, ResumedRequest, ServiceLogsRequest,
    SetTimeRequest,
};
use prost::Message;

use super::request;

pub(crate) fn convert(bytes: &[u8]) {
    let _ = SetTimeRequest::decode(bytes).map(request::time);
    let _ = ResumedRequest::decode(bytes).map(|it| request::resumed_time(it.time));
    let _ = FreezeRequest::decode(bytes).map(request::freeze_limit);
    let _ = CreateServiceRequest::decode(bytes).map(request::new_service);
    let _ = ServiceLogsRequest::decode(bytes).map(request::logs);
    let _ = MetricsRequest::decode(bytes).map(request::interval);
}

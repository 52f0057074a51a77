//! How the one typed detail of an error travels: as gRPC's richer error model has it, an [`ErrorDetail`] in a
//! `google.protobuf.Any` in a `google.rpc.Status` in the trailer `grpc-status-details-bin`.

use bytes::Bytes;
use prost::Message;

use crate::v1::ErrorDetail;

const TYPE_URL: &str = "type.googleapis.com/guestline.v1.ErrorDetail";

/// `google.rpc.Status`, as googleapis' google/rpc/status.proto defines it.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// A `google.rpc.Code`, the same as `grpc-status`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The same as `grpc-message`.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Here always one [`ErrorDetail`].
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}

/// The value of `grpc-status-details-bin` for an error with this detail.
pub fn encode_error_detail(code: i32, message: &str, detail: &ErrorDetail) -> Bytes {
    let any = prost_types::Any {
        type_url: TYPE_URL.into(),
        value: detail.encode_to_vec(),
    };
    RpcStatus {
        code,
        message: message.into(),
        details: vec![any],
    }
    .encode_to_vec()
    .into()
}

/// The detail in a value of `grpc-status-details-bin`, if there is one.
pub fn decode_error_detail(details: &[u8]) -> Option<ErrorDetail> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.iter().find(|any| any.type_url == TYPE_URL)?;
    ErrorDetail::decode(any.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ErrorReason;

    #[test]
    fn a_detail_survives_the_trip_and_strangers_bytes_do_not_panic() {
        let detail = ErrorDetail {
            reason: ErrorReason::PermissionDenied.into(),
            errno: 13,
            operation: "open".into(),
            path: Bytes::from_static(b"/etc/\xff"),
        };
        assert_eq!(
            decode_error_detail(&encode_error_detail(7, "no", &detail)),
            Some(detail)
        );
        assert_eq!(decode_error_detail(b"\xff\xff\xff"), None);
        assert_eq!(decode_error_detail(b""), None);
    }
}

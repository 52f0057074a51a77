//! JSON in and out. A body that is not what it should be is an error of the contract.

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
};
use serde::de::DeserializeOwned;

use super::error::{ApiError, Code};

/// Of all requests but those with files.
const MAX_BODY: usize = 1024 * 1024;

/// A JSON body, whatever its content type says: the SDK sends none with an empty body, which is `{}` here.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read_json(request, MAX_BODY, Code::BadRequest)
            .await
            .map(Self)
    }
}

/// At most `limit` bytes of JSON. `code` is how what is wrong with it is called.
pub(crate) async fn read_json<T: DeserializeOwned>(
    request: Request,
    limit: usize,
    code: Code,
) -> Result<T, ApiError> {
    let body = to_bytes(request.into_body(), limit).await;
    let body = body.map_err(|_| {
        ApiError::new(
            code,
            format!("the body was cut off, or has more than {limit} bytes"),
        )
    })?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    parse_object(text)
        .map_err(|why| ApiError::new(code, format!("the body is not as it should be: {why}")))
}

/// A JSON object as a `T`; else why it is none. serde would take a list for the fields of a struct in their order.
pub(super) fn parse_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is no JSON object".into());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

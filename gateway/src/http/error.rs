//! How a request fails: a code of the contract, a text for people, and what the contract wants beside them.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
pub(crate) use crate::failure::{Code, full};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    code: Code,
    message: String,
    fields: Map<String, Value>,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            fields: Map::new(),
        }
    }

    /// With one more field in the body.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.into(), value.into());
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// `code` is what the SDK looks up, `error` what the API's documents show.
    pub(crate) fn to_body(&self) -> Value {
        let code = self.code.as_str();
        let mut body = json!({
            "code": code,
            "error": code,
            "message": self.message,
            "description": self.code.description(),
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.fields.clone());
        }
        body
    }
}

/// On a response that failed: its code, for the audit log and the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedWith(pub(crate) Code);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.to_body();
        let status = StatusCode::from_u16(self.code.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(FailedWith(self.code));
        response
    }
}

/// What fails below the API. A credential that is refused is told why once more, where the SDK looks for it.
impl<T: Into<Failure>> From<T> for ApiError {
    fn from(cause: T) -> Self {
        let Failure { code, text } = cause.into();
        let error = Self::new(code, text.clone());
        match code {
            Code::Unauthorized => error.with("reason", text),
            _ => error,
        }
    }
}

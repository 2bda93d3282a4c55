//! Errors as RFC 9457 `application/problem+json`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// How many characters of what a client sent are told back.
const EXCERPT: usize = 60;

/// Something that a client can read and act on instead of an answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(flatten)]
    members: Map<String, Value>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            title,
            status: status.as_u16(),
            detail: detail.into(),
            members: Map::new(),
            retry_after: None,
        }
    }

    /// 400: a parameter that cannot be taken.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "The request cannot be understood",
            detail,
        )
    }

    /// 401: say who you are.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "The token is missing or wrong",
            detail,
        )
    }

    /// 403.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "This is not allowed", detail)
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing here", detail)
    }

    /// 405; the router adds `Allow`.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "this resource takes another method: see the header `Allow`";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed",
            detail,
        )
    }

    /// 413.
    pub(super) fn body_too_large() -> Self {
        let detail = "requests of this API carry no body";
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The request body is too large",
            detail,
        )
    }

    /// 414.
    pub(super) fn uri_too_long(limit: usize) -> Self {
        let detail = format!("path and query together may have {limit} bytes");
        Self::new(StatusCode::URI_TOO_LONG, "The address is too long", detail)
    }

    /// 422: rows that may lie in the range have been dropped.
    pub(super) fn no_longer_here(detail: impl Into<String>) -> Self {
        let title = "The range begins before what is kept here";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, title, detail)
    }

    /// 500.
    pub(super) fn internal() -> Self {
        let detail = "the server's log has the reason";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The request failed",
            detail,
        )
    }

    /// 503: try again after so many seconds.
    pub(super) fn unavailable(detail: impl Into<String>, retry_after: u32) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This cannot be answered now",
            detail,
        );
        problem.retry_after = Some(retry_after);
        problem
    }

    /// Adds a member of its own.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The JSON object.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, self.json()).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The beginning of what a client sent, to be told back.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

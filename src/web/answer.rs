//! Refusals and values as HTTP.

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use mpreg_patterns::base::{Code, Culprit, Refusal};
use mpreg_patterns::node::error_reply;
use mpreg_sockets::envelope::{self, Encoding};

use super::guest::rest;
use super::lane::Ended;

/// A body of JSON.
pub(super) fn json_body(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal of the web thread's own, in the words of the envelope.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let reply = error_reply(None, None, refusal.clone());
    let body = envelope::lone(Encoding::Json, &reply).map(|message| message.body);
    let body = rest(&body.unwrap_or_default());
    told(status(refusal.code.as_str(), refusal.culprit), body)
}

/// An `error` that the core has written.
pub(super) fn told(status: StatusCode, body: String) -> Response {
    let mut response = json_body(status, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The core has ended, or hung up.
pub(super) fn ended(_: Ended) -> Response {
    refused(&Refusal::new(Code::Draining, "the broker has ended"))
}

/// The status of a refusal.
pub(super) fn status(code: &str, culprit: Culprit) -> StatusCode {
    match Code::find(code) {
        Some(Code::UnknownFunction | Code::NoVersion | Code::NoLocation | Code::UnknownQueue) => {
            StatusCode::NOT_FOUND
        }
        Some(Code::UnknownPath) => StatusCode::NOT_FOUND,
        Some(Code::ForeignOrigin) => StatusCode::FORBIDDEN,
        Some(Code::BadContentType) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Some(Code::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Some(Code::Timeout) => StatusCode::GATEWAY_TIMEOUT,
        Some(Code::Busy | Code::Draining) => StatusCode::SERVICE_UNAVAILABLE,
        _ => match culprit {
            Culprit::Caller => StatusCode::BAD_REQUEST,
            Culprit::Worker => StatusCode::BAD_GATEWAY,
            Culprit::Broker => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// A refusal of what stands before the handlers (a body that is too large, a path that is no
/// UTF-8, no handshake at `/ws`) has a code as well.
pub(super) fn in_words(response: Response) -> Response {
    let status = response.status();
    let is_told = response.headers().get(CONTENT_TYPE).is_some_and(|of| of == "application/json");
    if is_told || !status.is_client_error() {
        return response;
    }
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        _ => Code::BadField,
    };
    let reason = status.canonical_reason().unwrap_or("refused");
    let mut told = refused(&Refusal::new(code, format!("the request is not taken: {reason}")));
    *told.status_mut() = status;
    told
}

pub(super) async fn unknown_path(uri: Uri) -> Response {
    let message = format!("there is nothing at {}; docs/PROTOCOL.md lists the paths", uri.path());
    refused(&Refusal::new(Code::UnknownPath, message))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let allowed = match uri.path().rsplit('/').next() {
        _ if uri.path().starts_with("/topics/") => "GET",
        Some("" | "mpreg.js" | "next" | "health" | "metrics" | "ws") => "GET",
        _ => "POST",
    };
    let message = format!("{} takes {allowed}, not {method}", uri.path());
    let mut response = refused(&Refusal::new(Code::UnknownPath, message));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A small object.
pub(super) fn object(status: StatusCode, value: &serde_json::Value) -> Response {
    json_body(status, value.to_string())
}

//! What the edge answers in its own words, when no app does: a status, one plain sentence, and what to do.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use isles_model::RegionName;

use crate::{
    body::Answer,
    head::Refusal,
    peer::{NotServed, mark_ping},
};

/// The region whose app answered.
pub(crate) const REGION: HeaderName = HeaderName::from_static("isles-region");
/// The region whose edge the client talks to.
pub(crate) const EDGE: HeaderName = HeaderName::from_static("isles-edge");
/// On an error: `unknown` when an app may have carried the request out, `not-done` when certainly none did.
const OUTCOME: HeaderName = HeaderName::from_static("isles-outcome");
/// When a client should ask again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An answer of the edge's own, and the word it is counted by.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) response: Box<Response<Answer>>,
    pub(crate) reason: &'static str,
}

fn own(status: StatusCode, reason: &'static str, sentence: String) -> Own {
    let mut response = Response::new(Answer::Own(Some(Bytes::from(sentence + "\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Own { response: Box::new(response), reason }
}

/// The request itself is at fault.
pub(crate) fn refused(refusal: Refusal) -> Own {
    let mut own = own(refusal.status(), refusal.reason(), format!("Bad request: {refusal}."));
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE");
        own.response.headers_mut().insert(header::ALLOW, allow);
    }
    own
}

/// Nothing was done; the client may ask again.
pub(crate) fn unavailable(reason: &'static str, sentence: String) -> Own {
    let mut own = own(StatusCode::SERVICE_UNAVAILABLE, reason, sentence);
    own.response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    own.response.headers_mut().insert(OUTCOME, HeaderValue::from_static("not-done"));
    own
}

/// The request was sent and no answer came: it may have been carried out.
pub(crate) fn unknown(reason: &'static str, safe: bool) -> Own {
    let sentence = if safe {
        "The app did not answer."
    } else {
        "The app did not answer. It may have carried the request out: look before you repeat it."
    };
    let mut own = own(StatusCode::BAD_GATEWAY, reason, sentence.to_owned());
    own.response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    own.response.headers_mut().insert(OUTCOME, HeaderValue::from_static("unknown"));
    own
}

/// The client sent less than it said, or too slowly.
pub(crate) fn incomplete() -> Own {
    own(StatusCode::BAD_REQUEST, "body_incomplete", "The request's body did not arrive.".to_owned())
}

/// The writer's region wants to be asked directly.
pub(crate) fn misdirected(writer: &RegionName) -> Own {
    let sentence = format!("Writes are taken in region {writer} only.");
    let mut own = own(StatusCode::MISDIRECTED_REQUEST, "misdirected", sentence);
    if let Ok(value) = HeaderValue::from_str(writer.as_str()) {
        own.response.headers_mut().insert(HeaderName::from_static("isles-writer"), value);
    }
    own
}

/// Two edges send a request to each other.
pub(crate) fn looped() -> Own {
    own(StatusCode::LOOP_DETECTED, "loop", "The request was sent on too often.".to_owned())
}

/// To another edge: no app has seen the request. Without a body, so that the connection is free at once.
pub(crate) fn not_served(why: NotServed) -> Own {
    let mut response = Response::new(Answer::Own(None));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    why.write(response.headers_mut());
    Own { response: Box::new(response), reason: why.as_str() }
}

/// To another edge: this one is alive.
pub(crate) fn pong() -> Response<Answer> {
    let mut response = Response::new(Answer::Own(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    mark_ping(response.headers_mut());
    response
}

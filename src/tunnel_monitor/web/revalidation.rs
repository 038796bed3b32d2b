//! Answers that a reader keeps and asks about (RFC 9110, section 13.1.2): ten browser tabs that poll cost
//! next to nothing while there is nothing new.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

/// What `make` makes, or that it is what the reader has, by the tag of it. Without a tag he is never told so.
pub(super) fn unless_known(
    asked: &HeaderMap,
    tag: Option<&str>,
    kind: &'static str,
    make: impl FnOnce() -> Body,
) -> Response<Body> {
    let is_known = tag.is_some_and(|tag| is_among(tag, asked));
    let mut response = Response::new(if is_known { Body::empty() } else { make() });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let ask_first = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, ask_first);
    if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Whether the reader has what this tag names.
fn is_among(tag: &str, headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    // None of our tags has a comma.
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|known| known.trim());
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

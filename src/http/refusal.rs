//! Requests that no handler sees, and answers that are a status and nothing else.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::host::Hosts;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: &'static str,
}

const METHOD: Refusal = Refusal {
    status: StatusCode::METHOD_NOT_ALLOWED,
    reason: "only GET and HEAD are answered",
};
const BODY: Refusal = Refusal {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    reason: "a request has no body here",
};
const TARGET: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    reason: "the request asks for no path",
};
const NO_HOST: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    reason: "a request has exactly one Host, a name or an address",
};
const STRANGE_HOST: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    reason: "this host is not known here by that name; call it by an address, by its own name, or allow \
             the name with --allow-host",
};

/// Why this request is refused; `None`: it is not.
pub(super) fn of<T>(request: &Request<T>, hosts: &Hosts) -> Option<Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(METHOD);
    }
    if let Some(refusal) = host_of(request, hosts) {
        return Some(refusal);
    }
    if has_body(request.headers()) {
        return Some(BODY);
    }
    (!request.uri().path().starts_with('/')).then_some(TARGET)
}

/// RFC 9112, section 3.2. A target that names a host stands above the header; neither may be strange.
fn host_of<T>(request: &Request<T>, hosts: &Hosts) -> Option<Refusal> {
    let mut allowed = Vec::new();
    if let Some(target) = request.uri().authority() {
        allowed.push(hosts.allow_target(target));
    }
    let mut headers = request.headers().get_all(header::HOST).iter();
    match (headers.next(), headers.next()) {
        (Some(host), None) => allowed.push(host.to_str().ok().and_then(|host| hosts.allow(host))),
        // Who speaks HTTP/1.0 is no browser.
        (None, None) if request.version() == Version::HTTP_10 => {}
        _ => return Some(NO_HOST),
    }
    allowed.into_iter().find_map(|allowed| match allowed {
        None => Some(NO_HOST),
        Some(false) => Some(STRANGE_HOST),
        Some(true) => None,
    })
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

impl Refusal {
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = said(self.status, self.reason);
        let headers = response.headers_mut();
        // Whatever comes next on this connection is not to be taken for a request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if self == METHOD {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    /// An answer that says no and nothing more gets its reason in words.
    pub(super) fn spelled_out(response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let is_no = status.is_client_error() || status.is_server_error();
        if !is_no || response.body().size_hint().exact() != Some(0) {
            return response;
        }
        said(status, status.canonical_reason().unwrap_or("refused"))
    }
}

fn said(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{words}\n")));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

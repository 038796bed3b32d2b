//! The page itself: three files that `make web` builds from `web/`, and that the binary has in it.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Redirect;
use axum::routing::get;

use super::revalidation::unless_known;

/// Everything comes from here, and nothing is inline. Pictures are made by the page, to be saved.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist/tunnel.html")),
    },
    Asset {
        path: "/tunnel.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist/tunnel.js")),
    },
    Asset {
        path: "/tunnel.css",
        kind: "text/css; charset=utf-8",
        text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist/tunnel.css")),
    },
];

pub(super) fn router() -> Router {
    let mut router = Router::new();
    for Asset { path, kind, text } in ASSETS {
        // Browsers ask each time, so that a page never meets the server of another version for long.
        let tag = tag(text);
        let answer = async move |asked: HeaderMap| {
            let body = || Body::from(text);
            let mut response = unless_known(&asked, Some(&tag), kind, body);
            let policy = HeaderValue::from_static(POLICY);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        };
        router = router.route(path, get(answer));
    }
    // Where the original has its page.
    router.route("/demos/tunnel.html", get(async || Redirect::temporary("/")))
}

/// Names a text by what is in it: FNV-1a of 64 bits.
fn tag(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{hash:x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_have_other_tags() {
        // The hash's own test vectors.
        assert_eq!(tag(""), "\"cbf29ce484222325\"");
        assert_eq!(tag("foobar"), "\"85944171f73967e8\"");
    }
}

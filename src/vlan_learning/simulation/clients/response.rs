//! What a server has answered: one of ours, or anybody who has that address.

/// Characters of a worker's name, at most.
const LONGEST_NAME: usize = 64;

/// A worker's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Who has answered.
    pub(super) worker: String,
    /// Of the page, without the header.
    pub(super) bytes: usize,
}

impl Page {
    /// The page in a whole response, or why there is none.
    pub(super) fn read(response: &[u8]) -> Result<Page, String> {
        if response.is_empty() {
            return Err("the server closed the connection without an answer".into());
        }
        let end = b"\r\n\r\n";
        let at = response.windows(end.len()).position(|part| part == end);
        let (head, body) = at
            .and_then(|at| Some((response.get(..at)?, response.get(at + end.len()..)?)))
            .ok_or("the answer ends within its header")?;
        let head = str::from_utf8(head).map_err(|_| NO_HTTP)?;
        let mut lines = head.split("\r\n");
        let code = lines.next().and_then(code).ok_or(NO_HTTP)?;
        if code != 200 {
            return Err(format!("the server answered {code}"));
        }
        let promised = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, length)| length.trim().parse::<usize>().map_err(|_| NO_HTTP))
            .transpose()?;
        if let Some(promised) = promised.filter(|promised| *promised != body.len()) {
            let bytes = body.len();
            return Err(format!("{bytes} of {promised} bytes came"));
        }
        Ok(Page {
            worker: name(body).ok_or("the page names no worker")?,
            bytes: body.len(),
        })
    }
}

const NO_HTTP: &str = "the answer is no HTTP";

/// RFC 9112, 4.
fn code(line: &str) -> Option<u16> {
    let (version, rest) = line.split_at_checked("HTTP/1.1".len())?;
    let code = rest.strip_prefix(' ')?.get(..3)?;
    let is_http = version.starts_with("HTTP/1.") && code.bytes().all(|byte| byte.is_ascii_digit());
    is_http.then(|| code.parse().ok())?
}

/// What the heading says, if it can be a worker's name.
fn name(page: &[u8]) -> Option<String> {
    let page = str::from_utf8(page).ok()?;
    let (_, rest) = page.split_once("<h1>")?;
    let (name, _) = rest.split_once("</h1>")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_name);
    fits.then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: &str = "<!DOCTYPE html><title>x</title><h1>worker7</h1>";

    fn response(head: &str, body: &str) -> Vec<u8> {
        format!("{head}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn a_page_names_its_worker() {
        let bytes = PAGE.len();
        for head in [
            "HTTP/1.1 200 OK".to_owned(),
            "HTTP/1.0 200".to_owned(),
            format!("HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length:{bytes} \r\nA: b"),
        ] {
            let page = Page::read(&response(&head, PAGE));
            let worker = "worker7".into();
            assert_eq!(page, Ok(Page { worker, bytes }), "{head}");
        }
    }

    #[test]
    fn what_is_no_page_says_why() {
        let ok = "HTTP/1.1 200 OK";
        for (response, expected) in [
            (
                Vec::new(),
                "the server closed the connection without an answer",
            ),
            (
                b"HTTP/1.1 200 OK\r\n".to_vec(),
                "the answer ends within its header",
            ),
            (response("SSH-2.0-x", ""), NO_HTTP),
            (response("HTTP/1.1", PAGE), NO_HTTP),
            (response("HTTP/1.1 2x0 OK", PAGE), NO_HTTP),
            (response("HTTP/2.0 200 OK", PAGE), NO_HTTP),
            (response("\u{e9}HTTP/1.1 200", PAGE), NO_HTTP),
            (b"HTTP/1.1 200 \xff\r\n\r\n".to_vec(), NO_HTTP),
            (
                response("HTTP/1.1 404 Not Found", PAGE),
                "the server answered 404",
            ),
            (
                response("HTTP/1.1 200 OK\r\nContent-Length: 48", PAGE),
                "47 of 48 bytes came",
            ),
            (
                response("HTTP/1.1 200 OK\r\nContent-Length: -1", PAGE),
                NO_HTTP,
            ),
            (response(ok, ""), "the page names no worker"),
            (response(ok, "<h1></h1>"), "the page names no worker"),
            (response(ok, "<h1>worker0"), "the page names no worker"),
            (response(ok, "<h1>\x1b[2J</h1>"), "the page names no worker"),
            (response(ok, "</h1><h1>"), "the page names no worker"),
        ] {
            assert_eq!(Page::read(&response), Err(expected.into()));
        }
        let long = format!("<h1>{}</h1>", "w".repeat(65));
        Page::read(&response(ok, &long)).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(
            head in "(HTTP/1.1 200 )?[ -~\r\n\u{e9}]{0,200}",
            body in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let response = [head.as_bytes(), b"\r\n\r\n<h1>", &body, b"</h1>"].concat();
            if let Ok(page) = Page::read(&response) {
                prop_assert!(page.worker.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}

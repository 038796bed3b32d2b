//! A page for browsers that run no scripts: what passed in the last window, the busiest flows first.

use std::fmt::{self, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::Monitor;
use super::lending::Moment;
use crate::notation::grouped;
use crate::report::notes;
use crate::tunnel_monitor::flow::Counts;
use crate::tunnel_monitor::sample::Row;

/// Nothing is loaded but the page's own style, and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const STYLE: &str = "\
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 1.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin-block: 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: start; font-weight: bold; padding-block: 0.5rem; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #8888; text-align: start; white-space: nowrap; }
th.number, td.number { text-align: end; }
";

pub(super) async fn style() -> Response<Body> {
    typed(Body::from(STYLE), "text/css; charset=utf-8")
}

pub(super) async fn answer(State(monitor): State<Arc<Monitor>>) -> Response<Body> {
    let Some(moment) = monitor.last().moment() else {
        // Others were quicker to ask for newer samples; there will be one to ask for, too.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    let mut response = typed(
        Body::from(Page(&moment).to_string()),
        "text/html; charset=utf-8",
    );
    let policy = HeaderValue::from_static(POLICY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn typed(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Text that says itself in HTML, whatever is in it.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Also those that turn the direction of what follows.
                char if char.is_control() || is_invisible(char) => f.write_char('\u{fffd}')?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

struct Page<'a>(&'a Moment);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Page(moment) = self;
        let sample = &*moment.sample;
        f.write_str(concat!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
            "<meta name=\"viewport\" content=\"width=device-width\">\n",
            "<meta http-equiv=\"refresh\" content=\"5\">\n<title>Tunnel Flows</title>\n",
            "<link rel=\"stylesheet\" href=\"/plain.css\">\n</head>\n<body>\n<h1>Tunnel Flows</h1>\n",
        ))?;
        let names = sample.interfaces.join(", ");
        let flows = grouped(moment.flows() as u64);
        let capacity = grouped(sample.capacity.into());
        let length = sample.window.length.as_secs_f64();
        let elapsed = sample.elapsed.as_secs();
        writeln!(
            f,
            "<p>On {}, counting for {elapsed} s: {flows} flows, room for {capacity}.</p>",
            Text(&names)
        )?;
        for note in notes([
            (
                sample.other.packets(),
                "packets are of flows that there was no room for",
            ),
            (
                sample.forgotten_flows,
                "flows were idle and have been forgotten",
            ),
        ]) {
            writeln!(f, "<p><strong>{}</strong></p>", Text(&note))?;
        }
        let caption = if length > 0.0 {
            format!("The busiest flows of the last {length:.1} s")
        } else {
            "The first interval has not ended yet".to_owned()
        };
        writeln!(
            f,
            "<div class=\"wide\">\n<table>\n<caption>{caption}</caption>\n<thead><tr><th>VNI</th>\
             <th>kind</th><th>outer, here</th><th>outer, there</th><th>inner, here</th>\
             <th>inner, there</th><th class=\"number\">bytes received</th>\
             <th class=\"number\">bytes sent</th><th class=\"number\">received in all</th>\
             <th class=\"number\">sent in all</th></tr></thead>\n<tbody>"
        )?;
        let mut rows = moment.busiest().peekable();
        if rows.peek().is_none() {
            writeln!(f, "<tr><td colspan=\"10\">nothing passed</td></tr>")?;
        }
        for row in rows {
            write_row(f, row)?;
        }
        writeln!(f, "</tbody>\n</table>\n</div>")?;
        write_totals(f, sample.totals)?;
        f.write_str(concat!(
            "<p><a href=\"/data/tunnel.json\">all flows</a>, ",
            "<a href=\"/data/tunnel-delta.json\">those of the last interval</a></p>\n",
            "</body>\n</html>\n",
        ))
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, row: Row<'_>) -> fmt::Result {
    let (flow, [local, remote]) = (row.flow, row.flow.outer());
    let inner = flow.inner().map(|ends| ends.map(|end| end.to_string()));
    let [behind_local, behind_remote] =
        inner.unwrap_or_else(|| ["not IP", "not IP"].map(str::to_owned));
    let kind = flow.encap.name();
    write!(
        f,
        "<tr><td>{}</td><td>{kind}</td><td>{local}</td><td>{remote}</td><td>{behind_local}</td>\
         <td>{behind_remote}</td>",
        flow.vni
    )?;
    for bytes in [
        row.window.rx_bytes,
        row.window.tx_bytes,
        row.total.rx_bytes,
        row.total.tx_bytes,
    ] {
        write!(f, "<td class=\"number\">{}</td>", grouped(bytes))?;
    }
    writeln!(f, "</tr>")
}

fn write_totals(f: &mut fmt::Formatter<'_>, totals: Counts) -> fmt::Result {
    writeln!(
        f,
        "<p>All tunnel packets since the start: {} received, {} bytes; {} sent, {} bytes.</p>",
        grouped(totals.rx_pkts),
        grouped(totals.rx_bytes),
        grouped(totals.tx_pkts),
        grouped(totals.tx_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text() {
        let hostile = "<img src=x onerror='a(\"&\")'>\u{202e}\u{7}\u{200b}";
        assert_eq!(
            Text(hostile).to_string(),
            "&lt;img src=x onerror=&#39;a(&quot;&amp;&quot;)&#39;&gt;\u{fffd}\u{fffd}\u{fffd}"
        );
    }
}

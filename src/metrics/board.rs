//! What a tool has published last, and how it is shown to those who ask.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::figures::Figures;

/// OpenMetrics 1.0.0, section 4.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Between the thread that publishes and the one that answers.
#[derive(Debug)]
pub struct Board {
    /// `netbpf_TOOL`.
    prefix: String,
    started: Instant,
    /// Seconds since 1970.
    start_time: f64,
    last: Mutex<Arc<Published>>,
    scrapes: AtomicU64,
    /// Nanoseconds that rendering took, all of it and the last time.
    scrapes_took: AtomicU64,
    last_took: AtomicU64,
}

#[derive(Debug)]
struct Published {
    figures: Figures,
    /// When the figures were read, and how long that took.
    at: Instant,
    took: Duration,
    /// How many were published before, this one too.
    number: u64,
}

/// How figures are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    OpenMetrics,
    /// What came before it, version 0.0.4: for those who ask for nothing newer (promtool, for example).
    Text,
}

impl Board {
    /// Nothing is published yet.
    pub fn new(tool: &str) -> Board {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nothing = Published {
            figures: Figures::default(),
            at: Instant::now(),
            took: Duration::ZERO,
            number: 0,
        };
        Board {
            prefix: format!("netbpf_{tool}"),
            started: nothing.at,
            start_time: now.unwrap_or_default().as_secs_f64(),
            last: Mutex::new(Arc::new(nothing)),
            scrapes: AtomicU64::new(0),
            scrapes_took: AtomicU64::new(0),
            last_took: AtomicU64::new(0),
        }
    }

    /// From now on these are the figures; reading them began then.
    pub fn publish(&self, began: Instant, figures: Figures) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Arc::new(Published {
            figures,
            at: began,
            took: began.elapsed(),
            number: last.number + 1,
        });
    }

    fn last(&self) -> Arc<Published> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&last)
    }

    /// Answers at `/metrics`.
    pub fn router(board: &Arc<Board>) -> Router {
        let board = Arc::clone(board);
        let answer = async move |headers: HeaderMap| Board::answer(&board, &headers);
        Router::new().route("/metrics", get(answer))
    }

    fn answer(board: &Arc<Board>, headers: &HeaderMap) -> Response {
        let began = Instant::now();
        let format = Format::asked_for(headers);
        let rendered = Board::render(board, format);
        board.note(began.elapsed());
        match rendered {
            Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
            Err(error) => {
                let text = format!("the figures cannot be written down: {error}\n");
                (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
            }
        }
    }

    fn note(&self, took: Duration) {
        let ns = took.as_nanos() as u64;
        self.scrapes.fetch_add(1, Ordering::Relaxed);
        self.scrapes_took.fetch_add(ns, Ordering::Relaxed);
        self.last_took.store(ns, Ordering::Relaxed);
    }

    fn render(board: &Arc<Board>, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(board)));
        let mut text = String::new();
        match format {
            Format::OpenMetrics => text::encode(&mut text, &registry)?,
            Format::Text => prometheus_text::encode(&mut text, &registry)?,
        }
        Ok(text)
    }

    /// How the tool itself is.
    fn health(&self, last: &Published) -> Figures {
        let seconds = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / 1e9;
        let mut health = Figures::default();
        health
            .info("build", "The version of the tool.")
            .of([("version", env!("CARGO_PKG_VERSION"))], 1);
        health
            .gauge("start_time", "seconds", "When it was started, since 1970.")
            .measures(self.start_time);
        health
            .gauge("uptime", "seconds", "How long it has been running.")
            .measures(self.started.elapsed().as_secs_f64());
        health
            .counter("", "samples", "How often its figures were read.")
            .is(last.number);
        let help = "How long ago that was the last time: about a second at most.";
        health
            .gauge("sample_age", "seconds", help)
            .measures(last.at.elapsed().as_secs_f64());
        health
            .gauge("sample_duration", "seconds", "How long it took.")
            .measures(last.took.as_secs_f64());
        health
            .counter("", "scrapes", "How often it was asked for them before.")
            .is(self.scrapes.load(Ordering::Relaxed));
        let help = "How long it took to write them down, all scrapes together.";
        health
            .counter("scrape_duration", "seconds", help)
            .measures(seconds(&self.scrapes_took));
        let help = "How long it took the last time.";
        health
            .gauge("last_scrape_duration", "seconds", help)
            .measures(seconds(&self.last_took));
        health
    }
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let last = self.last();
        self.health(&last).encode(&self.prefix, &mut encoder)?;
        last.figures.encode(&self.prefix, &mut encoder)
    }
}

impl Format {
    /// Prometheus names OpenMetrics first; who names nothing gets it as well.
    fn asked_for(headers: &HeaderMap) -> Format {
        let accepts = |wanted: &str| {
            let values = headers.get_all(header::ACCEPT).iter();
            let mut values = values.filter_map(|value| value.to_str().ok());
            values.any(|value| value.contains(wanted))
        };
        if accepts("text/plain") && !accepts("application/openmetrics-text") {
            Format::Text
        } else {
            Format::OpenMetrics
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => OPEN_METRICS,
            Format::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        figures
            .counter("passed", "bytes", "Bytes that passed.")
            .of([("port", "a\"b\\c\nd"), ("way", "up")], u64::MAX);
        figures.counter("", "events", "What happened.").is(7);
        figures.gauge("load", "", "How busy.").measures(0.5);
        figures.counter("client", "packets", "Of nobody.");
        figures
    }

    fn rendered(format: Format) -> String {
        let board = Arc::new(Board::new("tool"));
        board.publish(Instant::now(), figures());
        Board::render(&board, format).unwrap()
    }

    #[test]
    fn open_metrics_as_it_is_specified() {
        let text = rendered(Format::OpenMetrics);
        let expected = "\
# HELP netbpf_tool_passed_bytes Bytes that passed.
# TYPE netbpf_tool_passed_bytes counter
# UNIT netbpf_tool_passed_bytes bytes
netbpf_tool_passed_bytes_total{port=\"a\\\"b\\\\c\\nd\",way=\"up\"} 18446744073709551615
# HELP netbpf_tool_events What happened.
# TYPE netbpf_tool_events counter
# UNIT netbpf_tool_events events
netbpf_tool_events_total 7
# HELP netbpf_tool_load How busy.
# TYPE netbpf_tool_load gauge
netbpf_tool_load 0.5
# HELP netbpf_tool_client_packets Of nobody.
# TYPE netbpf_tool_client_packets counter
# UNIT netbpf_tool_client_packets packets
# EOF
";
        assert!(text.ends_with(expected), "{text}");
        let build = "netbpf_tool_build_info{version=\"";
        assert!(text.contains(build), "{text}");
        assert!(text.contains("\nnetbpf_tool_samples_total 1\n"), "{text}");
    }

    #[test]
    fn who_asks_for_the_text_format_gets_it() {
        let asked = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Format::asked_for(&headers)
        };
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(asked(prometheus), Format::OpenMetrics);
        assert_eq!(asked("*/*"), Format::OpenMetrics);
        assert_eq!(asked("text/plain;version=0.0.4"), Format::Text);
        assert_eq!(Format::asked_for(&HeaderMap::new()), Format::OpenMetrics);
        let text = rendered(Format::Text);
        let counter = "# TYPE netbpf_tool_events_total counter\nnetbpf_tool_events_total 7\n";
        assert!(text.contains(counter), "{text}");
    }

    #[test]
    fn scrapes_are_counted() {
        let board = Arc::new(Board::new("tool"));
        let headers = HeaderMap::new();
        for _ in 0..3 {
            assert_eq!(Board::answer(&board, &headers).status(), StatusCode::OK);
        }
        let text = Board::render(&board, Format::OpenMetrics).unwrap();
        assert!(text.contains("\nnetbpf_tool_scrapes_total 3\n"), "{text}");
        assert!(text.contains("\nnetbpf_tool_samples_total 0\n"), "{text}");
    }
}

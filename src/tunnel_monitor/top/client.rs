//! Asks a monitor for its events, for as long as it takes: a thread of its own, which has no capability.

use std::fmt;
use std::io::BufReader;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::Agent;
use ureq::http::Uri;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};

use super::events::{Events, harmless};
use super::picture::Update;
use crate::privilege::{self, Scope};
use crate::session::Waker;

/// Events come every second: who is silent for so long is gone, or as good as.
const SILENCE: Duration = Duration::from_secs(5);
/// Before the first is asked again; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Enough for the headers of any monitor.
const LONGEST_HEADER: usize = 16 * 1024;
/// Of what is wrong, as far as it has room on a line.
const LONGEST_REASON: usize = 200;
/// Updates that are kept for a user whose terminal is slow; then the server has to wait, and sends a
/// snapshot after that.
const WAITING: usize = 2;

/// Where a monitor answers: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorUrl(String);

impl FromStr for MonitorUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<MonitorUrl, String> {
        const LIKE: &str = "write it like http://127.0.0.1:8080";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {LIKE}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "a monitor speaks plain http; what encrypts it has to be a tunnel: \
                            ssh -L 8080:127.0.0.1:8080 HOST"
                        .into(),
                );
            }
            _ => return Err(LIKE.into()),
        }
        let Some(authority) = uri.authority().filter(|it| !it.host().is_empty()) else {
            return Err(LIKE.into());
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(format!("there is no user and no query; {LIKE}"));
        }
        if authority.port_u16() == Some(0) {
            return Err(format!("nobody listens on port 0; {LIKE}"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(MonitorUrl(format!("http://{authority}{path}")))
    }
}

impl fmt::Display for MonitorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the thread has to tell.
#[derive(Debug)]
pub(super) enum News {
    Update(Box<Update>),
    /// There is no answer, and why; it goes on asking.
    Lost(String),
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Client {
    news: Receiver<News>,
}

impl Client {
    /// Starts to ask. Each piece of news wakes the session.
    pub(super) fn start(url: &MonitorUrl, waker: Waker) -> Result<Client> {
        let (tell, news) = sync_channel(WAITING);
        let asker = Asker {
            agent: agent(),
            url: format!("{url}/events"),
            tell,
            waker,
        };
        thread::Builder::new()
            .name("events".into())
            .spawn(move || asker.run())
            .context("start a thread for events")?;
        Ok(Client { news })
    }

    /// The next news, if there are any.
    pub(super) fn next(&self) -> Result<Option<News>> {
        match self.news.try_recv() {
            Ok(news) => Ok(Some(news)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => bail!("the thread for events has ended"),
        }
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        // To be sent elsewhere is not what was asked for; nor is whatever the environment says.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .max_response_header_size(LONGEST_HEADER)
        // A stream that was cut is not asked again.
        .max_idle_connections(0)
        .build()
        .into()
}

struct Asker {
    agent: Agent,
    url: String,
    tell: SyncSender<News>,
    waker: Waker,
}

/// Nobody wants to hear it any more.
struct Unheard;

impl Asker {
    fn run(self) {
        let mut pause = FIRST_PAUSE;
        if let Err(error) = privilege::drop_all(Scope::Thread) {
            // Without that it does not talk to anybody.
            let _ = self.tell(News::Lost(format!("{error:#}")));
            return;
        }
        loop {
            let (answered, result) = self.listen();
            let reason = match result {
                Ok(Unheard) => return,
                Err(error) => harmless(&format!("{error:#}"), LONGEST_REASON),
            };
            if answered {
                pause = FIRST_PAUSE;
            }
            if self.tell(News::Lost(reason)).is_err() {
                return;
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn tell(&self, news: News) -> Result<(), Unheard> {
        self.tell.send(news).map_err(|_| Unheard)?;
        self.waker.wake();
        Ok(())
    }

    /// Passes events on for as long as they come; whether there was one, and the end.
    fn listen(&self) -> (bool, Result<Unheard>) {
        let mut answered = false;
        let mut listen = || -> Result<Unheard> {
            let request = self.agent.get(&self.url);
            let response = request.header(ACCEPT, "text/event-stream").call()?;
            let status = response.status();
            if !status.is_success() {
                bail!("it answered {status}: is this the monitor?");
            }
            let kind = response.headers().get(CONTENT_TYPE);
            if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
                bail!("there are no events: is this the monitor?");
            }
            // No end is foreseen, so no limit to all of it.
            let body = response.into_body().into_with_config().limit(u64::MAX);
            let mut events = Events::new(BufReader::new(body.reader()));
            while let Some(update) = events.next()? {
                answered = true;
                if self.tell(News::Update(Box::new(update))).is_err() {
                    return Ok(Unheard);
                }
            }
            bail!("the monitor has ended");
        };
        let result = listen();
        (answered, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_monitor_answers() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://monitor/behind/it/", "http://monitor/behind/it"),
        ] {
            let parsed: MonitorUrl = text.parse().unwrap();
            assert_eq!(parsed.to_string(), url);
        }
    }

    #[test]
    fn where_none_can_answer_is_said() {
        let refusal = |text: &str| text.parse::<MonitorUrl>().unwrap_err();
        assert!(refusal("https://127.0.0.1:8080").contains("plain http"));
        for text in [
            "127.0.0.1:8080",
            "",
            "monitor",
            "http://",
            "ftp://monitor",
            "/events",
        ] {
            assert!(refusal(text).contains("write it like"), "{text}");
        }
        assert!(refusal("http://127.0.0.1:0").contains("port 0"));
        for text in ["http://me@monitor", "http://monitor/?x=1"] {
            assert!(refusal(text).contains("no user and no query"), "{text}");
        }
    }
}

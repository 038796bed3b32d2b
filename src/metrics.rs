//! What every tool tells Prometheus: `--metrics ADDR`, as OpenMetrics.
//!
//! The tool's main thread publishes its figures about once a second, as one value that never changes; the
//! thread of the web server, which has no capability, renders the last one for whoever asks. So a scrape
//! costs the same whatever the tool's tables hold, and nobody who asks can hold up the tool. All metrics of
//! all tools are in docs/metrics.md.

mod board;
mod figures;
mod kept;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::Router;

use crate::failure::say;
use crate::http::{self, Listening, Server};
use board::Board;
pub use figures::{Family, Figures, OTHER};
pub use kept::{Kept, MOST_KEPT};

/// Where metrics are served: `127.0.0.1:9101`, `[::1]:9101`, or `:9101`, which means 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(SocketAddr);

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressError(text) = self;
        write!(
            f,
            "'{text}' is not an address and a port, such as 127.0.0.1:9101, [::1]:9101 or :9101"
        )
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let address = match text.strip_prefix(':') {
            // u16 would take a sign as well.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().map(|port| SocketAddr::new(here, port))
            }
            Some(_) => None,
            None => text.parse().ok(),
        };
        address
            .map(Address)
            .ok_or_else(|| AddressError(text.to_owned()))
    }
}

/// What a tool shows of itself. Without `--metrics` and [`Exporter::router`] nobody is shown anything, and
/// nothing is done.
#[derive(Debug)]
pub struct Exporter {
    board: Arc<Board>,
    /// Until [`Exporter::serve`].
    listening: Option<Listening>,
    server: Option<Server>,
    /// Another server answers too.
    is_shown_elsewhere: bool,
}

impl Exporter {
    /// Takes the address, before anything is changed: one that is taken is [`crate::Failure::Conflict`].
    /// Nobody is answered yet, and no thread runs.
    pub fn bind(tool: &'static str, address: Option<Address>) -> Result<Exporter> {
        let listening = address.map(|Address(it)| http::bind(it)).transpose()?;
        Ok(Exporter {
            board: Arc::new(Board::new(tool)),
            listening,
            server: None,
            is_shown_elsewhere: false,
        })
    }

    /// `/metrics` for a server that the tool has anyway.
    pub fn router(&mut self) -> Router {
        self.is_shown_elsewhere = true;
        Board::router(&self.board)
    }

    /// Answers from now on, beginning with these figures. To be called when the process has dropped its
    /// capabilities, which it does while it has no other thread.
    pub fn serve(&mut self, figures: impl FnOnce() -> Result<Figures>) -> Result<()> {
        if self.listening.is_some() || self.is_shown_elsewhere {
            self.board.publish(Instant::now(), figures()?);
        }
        let Some(listening) = self.listening.take() else {
            return Ok(());
        };
        let address = listening.local_addr();
        let router = Board::router(&self.board);
        self.server = Some(listening.serve(router, http::Options::default())?);
        say(format_args!("metrics at http://{address}/metrics"));
        Ok(())
    }

    /// To be called about once a second. That the server has ended is said once; what the tool does goes
    /// on without it.
    pub fn publish(&mut self, figures: impl FnOnce() -> Result<Figures>) -> Result<()> {
        if let Some(Err(error)) = self.server.as_mut().map(Server::check) {
            say(format_args!("no metrics any more: {error:#}"));
            self.server = None;
        }
        if self.server.is_none() && !self.is_shown_elsewhere {
            return Ok(());
        }
        let began = Instant::now();
        self.board.publish(began, figures()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_this_host_s() {
        let read = |text: &str| {
            let address = text.parse::<Address>();
            address.map(|Address(address)| address.to_string()).ok()
        };
        for (text, address) in [
            (":9101", "127.0.0.1:9101"),
            ("127.0.0.1:9101", "127.0.0.1:9101"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9101", "[::1]:9101"),
        ] {
            assert_eq!(read(text).as_deref(), Some(address), "{text}");
        }
        for text in [
            "",
            ":",
            "9101",
            "localhost:9101",
            ":+80",
            ":65536",
            "::1",
            ":-1",
            "1.2.3.4",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

//! The other end of the web server: a client that takes its answers apart itself, and sees how they end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testbed::step;

/// Longer than any limit of the server.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body came to its end: by its length or its last chunk.
    pub is_whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice");
        value
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        assert!(self.is_whole, "the answer was cut off");
        step("read the text", std::str::from_utf8(&self.body))
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        step("parse the answer", serde_json::from_str(self.text()))
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = step("connect", TcpStream::connect_timeout(&address, PATIENCE));
    step("bound", stream.set_read_timeout(Some(PATIENCE)));
    step("bound", stream.set_write_timeout(Some(PATIENCE)));
    stream
}

pub fn request(line: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    (text + "\r\n").into_bytes()
}

/// What is answered to these bytes; `None` where nothing is.
pub fn answer(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let stream = connect(address);
    // The server may refuse to take all of it.
    let _ = (&stream).write_all(bytes);
    read(&mut BufReader::new(&stream), !bytes.starts_with(b"HEAD"))
}

#[track_caller]
pub fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("Host", "localhost"), ("Connection", "close")];
    all.extend_from_slice(headers);
    let request = request(&format!("GET {path} HTTP/1.1"), &all);
    answer(address, &request).unwrap_or_else(|| panic!("no answer to {path}"))
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    get_with(address, path, &[])
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let is_whole = matches!(reader.read_line(&mut line), Ok(length) if length > 0);
    (is_whole && line.ends_with("\r\n")).then(|| line.trim_end().to_owned())
}

fn head(reader: &mut impl BufRead) -> Option<Answer> {
    let status = line(reader)?;
    let status = status.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let mut answer = Answer {
        status: step("the status", status.parse()),
        headers: Vec::new(),
        body: Vec::new(),
        is_whole: false,
    };
    loop {
        match line(reader)?.split_once(": ") {
            Some((name, value)) => answer
                .headers
                .push((name.to_ascii_lowercase(), value.to_owned())),
            None => return Some(answer),
        }
    }
}

/// One answer.
pub fn read(reader: &mut impl BufRead, has_body: bool) -> Option<Answer> {
    let mut answer = head(reader)?;
    let is_empty = !has_body || answer.status == 304;
    let length = answer.header("content-length").map(str::to_owned);
    if is_empty {
        answer.is_whole = true;
    } else if let Some(length) = length {
        let length: u64 = step("the length", length.parse());
        let _ = reader.take(length).read_to_end(&mut answer.body);
        answer.is_whole = answer.body.len() as u64 == length;
    } else if answer.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = chunk(reader) {
            answer.is_whole = chunk.is_empty();
            answer.body.extend(chunk);
            if answer.is_whole {
                break;
            }
        }
    } else {
        // HTTP/1.0: to the end of the connection.
        answer.is_whole = reader.read_to_end(&mut answer.body).is_ok();
    }
    Some(answer)
}

fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let length = usize::from_str_radix(&line(reader)?, 16).ok()?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.ends_with(b"\r\n").then(|| {
        chunk.truncate(length);
        chunk
    })
}

/// An event of a stream.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: String,
}

/// A stream of events.
pub struct Events {
    reader: BufReader<TcpStream>,
    text: Vec<u8>,
    pub retry: Option<String>,
}

impl Events {
    pub fn open(address: SocketAddr) -> Events {
        let stream = connect(address);
        let asked = request("GET /events HTTP/1.1", &[("Host", "localhost")]);
        step("ask for events", (&stream).write_all(&asked));
        let mut reader = BufReader::new(stream);
        let answer = head(&mut reader).unwrap_or_else(|| panic!("no answer to /events"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        Events {
            reader,
            text: Vec::new(),
            retry: None,
        }
    }

    /// The next one; `None` when the stream has ended.
    pub fn next(&mut self) -> Option<Event> {
        let mut seen: usize = 0;
        let end = loop {
            let from = seen.saturating_sub(1);
            let mut pairs = self.text[from..].windows(2);
            if let Some(end) = pairs.position(|bytes| bytes == b"\n\n") {
                break from + end;
            }
            seen = self.text.len();
            self.text.extend(chunk(&mut self.reader)?);
        };
        let rest = self.text.split_off(end + 2);
        let text = std::mem::replace(&mut self.text, rest);
        let text = step("read an event", String::from_utf8(text));
        let mut event = Event {
            name: String::new(),
            id: String::new(),
            data: String::new(),
        };
        for line in text.trim_end().lines() {
            assert!(line.len() <= 16 * 1024, "a line of {}", line.len());
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            match field {
                "retry" => self.retry = Some(value.to_owned()),
                "id" => event.id = value.to_owned(),
                "event" => event.name = value.to_owned(),
                "data" => event.data += &(value.to_owned() + "\n"),
                _ => panic!("{line:?}"),
            }
        }
        Some(event)
    }
}

/// All that comes, as far as it comes, and how it ends.
pub fn rest(mut stream: &TcpStream) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    (bytes, ended)
}

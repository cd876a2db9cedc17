//! HTTP/1.1 over a plain socket, so that tests control and see every byte.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::setup::{KEY_A, Key};
use super::wait::{DEADLINE, Deadline};

/// Builds a request. `Host: localhost` is its first header.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), "localhost".to_owned())];
        Self { line: format!("{method} {target} HTTP/1.1"), headers, body: None }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A heartbeat with this body.
    pub(crate) fn ping(agent: &str, key: Key, body: &Value) -> Self {
        Self::new("POST", &format!("/api/v1/agents/{agent}/ping"))
            .key(key)
            .body(body.to_string().as_bytes())
    }

    pub(crate) fn delete(agent: &str, key: Key) -> Self {
        Self::new("DELETE", &format!("/api/v1/agents/{agent}")).key(key)
    }

    /// A correct WebSocket upgrade (RFC 6455 section 4.1) to a pool's feed.
    pub(crate) fn feed(pool: &str) -> Self {
        Self::upgrade(&format!("/ws/agent-pools/{pool}/metrics"))
    }

    /// The same to the overview.
    pub(crate) fn overview() -> Self {
        Self::upgrade("/ws/agent-pools")
    }

    fn upgrade(target: &str) -> Self {
        Self::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// Adds the headers that authenticate an agent.
    pub(crate) fn key(self, key: Key) -> Self {
        self.header("X-App-Key", key.key).header("X-App-Secret", key.secret)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes the headers of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(present, _)| !present.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces a header's value, or adds the header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        match self.headers.iter_mut().find(|(present, _)| present.eq_ignore_ascii_case(name)) {
            Some(header) => value.clone_into(&mut header.1),
            None => self.headers.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Instead of `HTTP/1.1`.
    pub(crate) fn version(mut self, version: &str) -> Self {
        let (method_and_target, _) = self.line.rsplit_once(' ').unwrap();
        self.line = format!("{method_and_target} {version}");
        self
    }

    /// With its Content-Length.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_owned());
        self.with("Content-Length", &body.len().to_string())
    }

    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a new connection, and returns the response.
    pub(crate) fn send(&self, addr: SocketAddr) -> Response {
        let mut conn = Conn::open(addr);
        conn.send(&self.bytes());
        if self.line.starts_with("HEAD ") { conn.head_response() } else { conn.response() }
    }
}

/// A heartbeat's body without tasks.
pub(crate) fn heartbeat(cpu_usage: f64) -> Value {
    json!({ "status": "idle", "cpu_usage": cpu_usage, "memory_usage": 50.0, "running_tasks": [] })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Such as `HTTP/1.1`.
    pub(crate) version: String,
    /// Such as 200.
    pub(crate) status: u16,
    /// In order.
    pub(crate) headers: Vec<(String, String)>,
    /// As long as Content-Length says; without it all bytes until the connection ends.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Panics if there are two of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found =
            self.headers.iter().filter(|(present, _)| present.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {:.2000}", self.status, self.text()))
    }
}

#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Conn {
    /// Panics if that fails.
    pub(crate) fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"))
    }

    pub(crate) fn try_open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Uses a socket that the caller has connected, for example from another address.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Panics if the peer accepts nothing for [`DEADLINE`] or has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// For peers that may close the connection meanwhile.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a heartbeat with [`KEY_A`], and returns the response.
    pub(crate) fn ping(&mut self, agent: &str, body: &Value) -> Response {
        self.ping_as(agent, KEY_A, body)
    }

    pub(crate) fn ping_as(&mut self, agent: &str, key: Key, body: &Value) -> Response {
        self.send(&Request::ping(agent, key, body).bytes());
        self.response()
    }

    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("a response before the end")
    }

    /// The response to a HEAD request, which has no body in spite of its Content-Length.
    pub(crate) fn head_response(&mut self) -> Response {
        self.next_head().expect("a response before the end")
    }

    /// `None` if the connection ended before it. Panics at the deadline.
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        let mut response = self.next_head()?;
        // RFC 9112 section 6.3: these have no body.
        if matches!(response.status, 100..=199 | 204 | 304) {
            return Some(response);
        }
        let length = response.header("Content-Length").map(|text| text.parse::<usize>().unwrap());
        let deadline = Deadline::usual();
        while length.is_none_or(|length| self.unread.len() < length) {
            if !self.fill(deadline) {
                assert!(length.is_none(), "the end within a body after {response:?}");
                break;
            }
        }
        let end = length.unwrap_or(self.unread.len());
        response.body = self.unread.drain(..end).collect();
        Some(response)
    }

    /// Whether the peer ends the connection without sending another byte. Panics at the deadline.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.unread.is_empty() && !self.fill(Deadline::usual())
    }

    /// Whether neither a byte nor the end of the connection arrives within `time`.
    pub(crate) fn is_silent_for(&mut self, time: std::time::Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        match self.stream.peek(&mut byte) {
            Err(error) if is_timeout(&error) => self.unread.is_empty(),
            _ => false,
        }
    }

    fn next_head(&mut self) -> Option<Response> {
        let deadline = Deadline::usual();
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.fill(deadline) {
                assert!(self.unread.is_empty(), "the end within a head: {:?}", self.unread);
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().splitn(3, ' ');
        let version = first.next().unwrap().to_owned();
        let status = first.next().unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("header {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Response { version, status, headers, body: Vec::new() })
    }

    /// Reads once; `false` at the end or after a reset.
    fn fill(&mut self, deadline: Deadline) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            let left = deadline.left().unwrap_or_else(|| {
                panic!("nothing for {DEADLINE:?} after {:?}", String::from_utf8_lossy(&self.unread))
            });
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut chunk) {
                Ok(read) => {
                    self.unread.extend_from_slice(&chunk[..read]);
                    return read > 0;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) if is_timeout(&error) => {}
                Err(error) => panic!("reading: {error}"),
            }
        }
    }
}

/// Whether a read timed out; the kind differs between systems.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

//! The least HTTP/1.1 that a load generator needs: requests made beforehand, answers read to
//! their end. Cheap, because it shares the cores with what it measures.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Interest, Registry, Token};

use crate::Result;
use crate::server::{APP_KEY, APP_SECRET, HEARTBEAT_PATH, ID_DIGITS, STAMP_DIGITS, STAMP_MEMBER};

/// How long anything may take that normally takes a millisecond.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Headers of an answer; nginx sends 6, we fewer than 10.
const MAX_HEADERS: usize = 32;

/// A heartbeat that is sent again and again, each time with another agent id and stamp.
#[derive(Debug)]
pub(crate) struct Post {
    bytes: Vec<u8>,
    id_at: usize,
    stamp_at: usize,
}

impl Post {
    /// A request whose body holds the stamp's member.
    pub(crate) fn new(body: &[u8]) -> Self {
        let mut head = format!("POST {HEARTBEAT_PATH}");
        let id_at = head.len();
        head.push_str(&format!(
            "{:0ID_DIGITS$}/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nX-App-Key: {APP_KEY}\r\n\
             X-App-Secret: {APP_SECRET}\r\nUser-Agent: compare/1\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            0,
            body.len()
        ));
        let stamp_at = find(body, STAMP_MEMBER).map_or(0, |at| at + STAMP_MEMBER.len());
        let stamp_at = head.len() + stamp_at;
        Self { bytes: [head.as_bytes(), body].concat(), id_at, stamp_at }
    }

    /// The request's bytes for this agent (of [`ID_DIGITS`]) and stamp (of [`STAMP_DIGITS`]).
    pub(crate) fn bytes(&mut self, agent: u64, stamp: u64) -> Result<&[u8]> {
        write!(&mut self.bytes[self.id_at..][..ID_DIGITS], "{agent:0ID_DIGITS$}")?;
        write!(&mut self.bytes[self.stamp_at..][..STAMP_DIGITS], "{stamp}")?;
        Ok(&self.bytes)
    }
}

/// An agent's connection: one request at a time.
#[derive(Debug)]
pub(crate) struct Agent {
    stream: mio::net::TcpStream,
    answer: Vec<u8>,
    /// The stamp of the heartbeat whose answer is to come.
    stamp: u64,
}

impl Agent {
    /// Connects, and watches for answers under `token`.
    pub(crate) fn connect(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self> {
        let stream = connect(address)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self { stream, answer: Vec::new(), stamp: 0 })
    }

    /// Sends the heartbeat `bytes` with this stamp.
    pub(crate) fn send(&mut self, bytes: &[u8], stamp: u64) -> Result<()> {
        // A few kilobytes always fit into the empty send buffer of a connection at rest.
        if self.stream.write(bytes)? != bytes.len() {
            return Err("a heartbeat did not fit into its socket".into());
        }
        self.stamp = stamp;
        Ok(())
    }

    /// Reads what is there; the heartbeat's stamp when that completes its answer.
    ///
    /// # Errors
    /// Anything but an answer of the 2xx kind.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> Result<Option<u64>> {
        let read = match self.stream.read(scratch) {
            Ok(0) => return Err("the server closed an agent's connection".into()),
            Ok(read) => &scratch[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Mostly an answer comes whole, and is then not copied.
        let whole = if self.answer.is_empty() {
            read
        } else {
            self.answer.extend_from_slice(read);
            &self.answer
        };
        match answer_bytes(whole)? {
            Some(bytes) if bytes == whole.len() => {
                self.answer.clear();
                Ok(Some(self.stamp))
            }
            Some(bytes) if bytes < whole.len() => Err("more came than one answer".into()),
            _ => {
                if self.answer.is_empty() {
                    self.answer.extend_from_slice(read);
                }
                Ok(None)
            }
        }
    }
}

/// How long the answer that starts `bytes` is, when that can be said already.
fn answer_bytes(bytes: &[u8]) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else { return Ok(None) };
    if !matches!(answer.code, Some(200..=299)) {
        return Err(format!("a heartbeat got {}", String::from_utf8_lossy(bytes)).into());
    }
    let length = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or("an answer without Content-Length")?;
    let body: usize = std::str::from_utf8(length.value)?.parse()?;
    Ok(Some(head + body))
}

/// A blocking connection with a deadline on everything, and no delay for small writes.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Where `needle` starts in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

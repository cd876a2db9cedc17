//! A dashboard at the level of frames (RFC 6455 section 5.2): can send invalid ones, and reads only
//! when a test asks for it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::flood::connect_from;
use super::http::{Request, is_timeout};
use super::wait::{DEADLINE, Deadline, Pace};

/// In a frame's first byte: the last frame of its message. Below: opcodes.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// What a dashboard has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    /// Its payload.
    Pong(Vec<u8>),
    /// Its code.
    Close(Option<u16>),
    /// The connection was closed or reset.
    End,
}

#[derive(Debug)]
pub(crate) struct RawFeed {
    stream: TcpStream,
    unread: Vec<u8>,
    used: usize,
    pace: Option<Pace>,
}

impl RawFeed {
    /// From now on reads at most this many bytes per second.
    pub(crate) fn paced(mut self, bytes_per_second: u32) -> Self {
        self.pace = Some(Pace::new(bytes_per_second));
        self
    }

    /// Joins a pool from 127.0.0.1.
    pub(crate) fn join(addr: SocketAddr, pool: &str) -> Self {
        Self::join_from(1, addr, pool)
    }

    /// Joins a pool from `127.0.0.{from}`.
    pub(crate) fn join_from(from: u8, addr: SocketAddr, pool: &str) -> Self {
        Self::join_over(connect_from(from, addr).unwrap(), pool)
    }

    /// Joins a pool over a connected socket; panics if the server rejects it.
    pub(crate) fn join_over(stream: TcpStream, pool: &str) -> Self {
        Self::try_join(stream, pool).unwrap_or_else(|head| panic!("refused: {head}"))
    }

    /// Joins a pool, or returns the response that rejected it, as far as it arrived.
    pub(crate) fn try_join(mut stream: TcpStream, pool: &str) -> Result<Self, String> {
        // An overloaded server may have closed the connection; its response is read below.
        let _ = stream.write_all(&Request::feed(pool).bytes());
        Self::upgraded(stream)
    }

    /// Reads the response to an upgrade request that the caller has sent.
    pub(crate) fn upgraded(stream: TcpStream) -> Result<Self, String> {
        let mut feed = Self { stream, unread: Vec::new(), used: 0, pace: None };
        let end = loop {
            let head_end = feed.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(at) = head_end {
                break at + 4;
            }
            if !feed.fill() {
                return Err(String::from_utf8_lossy(&feed.unread).into_owned());
            }
        };
        feed.used = end;
        let head = String::from_utf8(feed.unread[..end].to_vec()).unwrap();
        // The accept value for the key of `Request::feed`: RFC 6455 section 1.3 has both.
        let accepted = head.starts_with("HTTP/1.1 101 ")
            && head.to_ascii_lowercase().contains("s3pplmbitxaq9kygzzhzrbk+xoo=");
        if accepted { Ok(feed) } else { Err(head) }
    }

    /// Sends a frame; `false` if the server has closed the connection.
    pub(crate) fn send(&mut self, first_byte: u8, payload: &[u8]) -> bool {
        self.send_bytes(&frame(first_byte, payload))
    }

    /// Sends any bytes; `false` if the server has closed the connection. Panics if it accepts
    /// nothing before the deadline.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if is_timeout(&error) => panic!("nothing taken for {DEADLINE:?}"),
            Err(_) => false,
        }
    }

    /// Receives, and answers Pings meanwhile. Panics at the deadline.
    pub(crate) fn hear(&mut self) -> Heard {
        let mut message = Vec::new();
        loop {
            let Some((first, payload)) = self.next_frame() else { return Heard::End };
            match first & 0x0F {
                TEXT | CONTINUATION => {
                    message.extend_from_slice(&payload);
                    if first & FIN != 0 {
                        return Heard::Text(String::from_utf8(message).unwrap());
                    }
                }
                PING => {
                    self.send(FIN | PONG, &payload);
                }
                PONG => return Heard::Pong(payload),
                CLOSE => {
                    let code = payload.get(..2).map(|two| u16::from_be_bytes([two[0], two[1]]));
                    return Heard::Close(code);
                }
                other => panic!("the server sent a frame of opcode {other}"),
            }
        }
    }

    /// The next text message that is not a keepalive; panics if anything else arrives.
    pub(crate) fn text(&mut self) -> String {
        loop {
            match self.hear() {
                Heard::Text(text) if text.starts_with(r#"{"type":"keepalive""#) => {}
                Heard::Text(text) => return text,
                other => panic!("{other:?} where a message was due"),
            }
        }
    }

    /// [`RawFeed::text`] as JSON.
    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Discards messages and Pongs until the Close or the end.
    pub(crate) fn farewell(&mut self) -> Heard {
        loop {
            match self.hear() {
                Heard::Text(_) | Heard::Pong(_) => {}
                last => return last,
            }
        }
    }

    /// The next frame's first byte and payload; `None` at the end.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, head, length)) = frame_head(&self.unread[self.used..]) {
                let (start, end) = (self.used + head, self.used + head + length);
                if let Some(payload) = self.unread.get(start..end) {
                    let payload = payload.to_vec();
                    self.used = end;
                    return Some((first, payload));
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Waits for more bytes; `false` at the end.
    fn fill(&mut self) -> bool {
        self.unread.drain(..self.used);
        self.used = 0;
        let mut chunk = [0; 32 * 1024];
        let deadline = Deadline::usual();
        loop {
            match self.stream.read(&mut chunk) {
                Ok(length) => {
                    if let Some(pace) = &mut self.pace {
                        pace.spend(length);
                    }
                    self.unread.extend_from_slice(&chunk[..length]);
                    return length > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    assert!(deadline.left().is_some(), "nothing came for {DEADLINE:?}");
                }
                Err(_) => return false,
            }
        }
    }
}

/// A client's frame of up to 64 KiB, masked with zeros, so that the payload remains readable.
pub(crate) fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let mut bytes = vec![first_byte];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(MASKED | length),
        _ => {
            bytes.push(MASKED | 126);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Of a server's frame: first byte, length of the head, length of the payload.
fn frame_head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server must not mask (RFC 6455 section 5.1)");
    Some(match second {
        126 => (first, 4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap());
            (first, 10, usize::try_from(length).unwrap())
        }
        length => (first, 2, usize::from(length)),
    })
}

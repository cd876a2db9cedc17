//! A dashboard's side of the feed (RFC 6455): the handshake, then frames counted as they come.
//! Cheap, because a thousand of them share the cores with what they measure.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

use crate::Result;
use crate::http::{connect, find};
use crate::server::{FEED_PATH, STAMP_DIGITS, STAMP_MEMBER};

/// An answer to a handshake is shorter; beyond it something is wrong.
const MAX_HEAD_BYTES: usize = 4 * 1_024;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: usize = 125;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const FIN_PONG: u8 = 0x8A;
const MASKED: u8 = 0x80;

/// How the messages start that are counted.
const UPDATE: &[u8] = br#"{"type":"metrics_update""#;

/// What the dashboards of one measurement got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Text messages of any type.
    pub(crate) messages: u64,
    /// Updates among them.
    pub(crate) updates: u64,
    /// The newest update.
    pub(crate) newest: Option<Vec<u8>>,
    /// Whether to keep it.
    pub(crate) keep_newest: bool,
    /// Stamps of the updates that were received and not yet taken from here.
    pub(crate) stamps: Vec<u64>,
    /// Where in an update the last stamp was.
    stamp_at: usize,
}

impl Tally {
    fn text(&mut self, payload: &[u8]) {
        self.messages += 1;
        if payload.starts_with(UPDATE) {
            self.updates += 1;
            if let Some(stamp) = self.find_stamp(payload) {
                self.stamps.push(stamp);
            }
            if self.keep_newest {
                self.newest = Some(payload.to_vec());
            }
        }
    }

    /// The update's stamp; mostly it is where it was in the update before.
    fn find_stamp(&mut self, payload: &[u8]) -> Option<u64> {
        let there = payload.get(self.stamp_at..).is_some_and(|rest| rest.starts_with(STAMP_MEMBER));
        if !there {
            self.stamp_at = find(payload, STAMP_MEMBER)?;
        }
        let digits = payload.get(self.stamp_at + STAMP_MEMBER.len()..)?.get(..STAMP_DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// One dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    stream: mio::net::TcpStream,
    /// The start of a frame whose end is not here yet.
    rest: Vec<u8>,
}

impl Dashboard {
    /// Connects to the feed, shakes hands, and watches for frames under `token`.
    ///
    /// # Errors
    /// Any answer but 101.
    pub(crate) fn connect(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
        tally: &mut Tally,
    ) -> Result<Self> {
        let mut stream = connect(address)?;
        // The key is RFC 6455's own example: nobody here checks that it is random.
        let request = format!(
            "GET {FEED_PATH} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let end = loop {
            if let Some(at) = find(&head, b"\r\n\r\n") {
                break at + 4;
            }
            let mut scratch = [0; 1_024];
            let read = stream.read(&mut scratch)?;
            head.extend_from_slice(&scratch[..read]);
            if read == 0 || head.len() > MAX_HEAD_BYTES {
                return Err("no end to the handshake's answer".into());
            }
        };
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("a dashboard got {}", String::from_utf8_lossy(&head)).into());
        }
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        let mut dashboard = Self { stream, rest: Vec::new() };
        let used = dashboard.frames(&head[end..], tally)?;
        dashboard.rest.extend_from_slice(&head[end + used..]);
        Ok(dashboard)
    }

    /// Takes what is there.
    ///
    /// # Errors
    /// When the server closes, or the connection breaks.
    pub(crate) fn receive(&mut self, scratch: &mut [u8], tally: &mut Tally) -> Result<()> {
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed a dashboard's connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.rest.is_empty() {
                let used = self.frames(&scratch[..read], tally)?;
                self.rest.extend_from_slice(&scratch[used..read]);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(&scratch[..read]);
                let used = self.frames(&whole, tally)?;
                whole.drain(..used);
                self.rest = whole;
            }
            // A short read has emptied the socket (epoll(7), "edge-triggered"): asking again
            // would only cost a call.
            if read < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Goes through the whole frames in `bytes`; how many bytes those were.
    fn frames(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<usize> {
        let mut used = 0;
        while let Some((opcode, payload, length)) = frame(&bytes[used..]) {
            match opcode {
                TEXT => tally.text(payload),
                PING => self.pong(payload)?,
                CLOSE => return Err("the server closed a dashboard".into()),
                _ => {}
            }
            used += length;
        }
        Ok(used)
    }

    fn pong(&mut self, payload: &[u8]) -> Result<()> {
        let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
        let length = u8::try_from(payload.len())?;
        // Masked with zeros, which leaves the payload as it is.
        let mut frame = vec![FIN_PONG, MASKED | length, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)?;
        Ok(())
    }
}

/// The unmasked frame that starts `bytes`, if it is whole: opcode, payload, length in all (RFC
/// 6455 section 5.2). Neither server sends fragments of messages this small.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (payload_bytes, head) = match second & !MASKED {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let end = head + usize::try_from(payload_bytes).ok()?;
    Some((first & 0x0F, bytes.get(head..end)?, end))
}

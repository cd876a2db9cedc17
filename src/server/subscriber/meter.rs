//! Counts the frames in what a dashboard sends: tungstenite returns whole messages, and a message may
//! have any number of empty fragments. Pure.

use std::collections::VecDeque;
use std::io::Cursor;
use std::time::{Duration, Instant};

use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use crate::server::limits::MAX_CLIENT_FRAMES_PER_MINUTE;

const WINDOW: Duration = Duration::from_secs(60);

/// Follows the frame headers of a stream of client frames.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The part of the next header that has come.
    header: Vec<u8>,
    /// Payload bytes still to be passed over.
    payload_left: u64,
    /// When the frames of the last minute came, pongs aside. Grows only as frames come.
    arrivals: VecDeque<Instant>,
}

/// More frames within a minute than a dashboard may send.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("too many frames within a minute")]
pub(super) struct OverLimit;

impl Meter {
    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), OverLimit> {
        loop {
            let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
            let skipped = left.min(bytes.len());
            self.payload_left -= skipped as u64;
            let Some((next, rest)) = bytes[skipped..].split_first() else { return Ok(()) };
            bytes = rest;
            self.header.push(*next);
            match FrameHeader::parse(&mut Cursor::new(&self.header)) {
                Ok(Some((header, payload_bytes))) => {
                    self.header.clear();
                    self.payload_left = payload_bytes;
                    if header.opcode != OpCode::Control(Control::Pong) {
                        self.count(now)?;
                    }
                }
                Ok(None) => {}
                // tungstenite finds the same, and ends the connection.
                Err(_) => return Ok(()),
            }
        }
    }

    fn count(&mut self, now: Instant) -> Result<(), OverLimit> {
        while self.arrivals.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() >= MAX_CLIENT_FRAMES_PER_MINUTE {
            return Err(OverLimit);
        }
        self.arrivals.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..=125 => frame.push(0x80 | u8::try_from(payload).unwrap()),
            126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(vec![0xFF; payload]);
        frame
    }

    #[test]
    fn the_limit_holds_at_its_edge_and_slides() {
        let start = Clock::start().now();
        let mut meter = Meter::default();
        for n in 0..MAX_CLIENT_FRAMES_PER_MINUTE {
            let now = start + Duration::from_millis(n as u64);
            assert_eq!(meter.feed(&frame(0x81, n % 130), now), Ok(()), "{n}");
        }
        let ping = frame(0x89, 0);
        assert_eq!(meter.feed(&ping, start + WINDOW - Duration::from_millis(1)), Err(OverLimit));
        assert_eq!(meter.feed(&ping, start + WINDOW), Ok(()), "the first has left the window");
        assert_eq!(meter.feed(&ping, start + WINDOW), Err(OverLimit));
    }

    #[test]
    fn pongs_are_free_and_pieces_are_put_together() {
        let now = Clock::start().now();
        let mut meter = Meter::default();
        let mut stream = Vec::new();
        for size in [0, 125, 126, 65_535, 65_536] {
            for _ in 0..10 {
                stream.extend(frame(0x8A, size));
            }
            stream.extend(frame(0x82, size));
        }
        for piece in stream.chunks(7) {
            assert_eq!(meter.feed(piece, now), Ok(()));
        }
        assert_eq!(meter.arrivals.len(), 5);
        // Empty fragments that never end a message.
        let fragments = frame(0x00, 0).repeat(MAX_CLIENT_FRAMES_PER_MINUTE - 5);
        assert_eq!(meter.feed(&fragments, now), Ok(()));
        assert_eq!(meter.feed(&frame(0x00, 0), now), Err(OverLimit));
    }
}

//! Counts the frames in what a dashboard sends, without understanding them: tungstenite returns
//! whole messages, and a message may have any number of empty fragments. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::server::limits::MAX_CLIENT_FRAMES_PER_MINUTE;

const WINDOW: Duration = Duration::from_secs(60);

/// Opcode of a Pong (RFC 6455 section 5.2).
const PONG: u8 = 0xA;

/// Follows the frame headers of a stream of client frames.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The header's bytes so far: two, an extended length, a mask.
    header: [u8; 14],
    header_len: usize,
    /// Payload bytes still to be passed over.
    payload_left: u64,
    /// When the frames of the last minute came, pongs aside. Grows only as frames come.
    arrivals: VecDeque<Instant>,
}

/// More frames within a minute than a dashboard may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OverLimit;

impl Meter {
    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), OverLimit> {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(self.payload_left);
                self.payload_left -= here;
                bytes = &bytes[usize::try_from(here).unwrap_or(bytes.len())..];
                continue;
            }
            self.header[self.header_len] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if self.header_len >= 2 && self.header_len == header_length(self.header[1]) {
                self.payload_left = payload_length(&self.header[..self.header_len]);
                self.header_len = 0;
                if self.header[0] & 0x0F != PONG {
                    self.count(now)?;
                }
            }
        }
        Ok(())
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

fn header_length(second: u8) -> usize {
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

fn payload_length(header: &[u8]) -> u64 {
    match header[1] & 0x7F {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => header[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        length => u64::from(length),
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

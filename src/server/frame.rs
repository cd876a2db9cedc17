//! WebSocket frames (RFC 6455 section 5.2) as the server sends them: unmasked, made once, kept
//! as bytes. Formats and measures; sends nothing.

use std::io;

use memmap2::MmapMut;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use crate::wire::KIB;

/// A long message goes out in fragments of this many bytes, so that a Pong or a Close need not
/// wait for the end of a snapshot on a slow line (RFC 6455 section 5.4).
pub(crate) const FRAGMENT_BYTES: usize = 64 * KIB;

/// Bytes of a frame's header at most (an unmasked one: RFC 6455 section 5.2).
const MAX_HEADER_BYTES: usize = 10;

/// Frames back to back, each with the sequence number of the (newest) change that it carries, which
/// rises. All fragments of one message have that message's number.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Used instead of `bytes` for a snapshot or a batch that may have megabytes. Dropping mapped pages returns
    /// them to the system at once; an allocator keeps, for each thread, up to twice the largest buffer
    /// that the thread ever had.
    pages: Option<MmapMut>,
    ends: Vec<End>,
}

/// Where a frame ends, and what it carries: what changed after `since`, up to `seq`.
#[derive(Debug, Clone, Copy)]
struct End {
    since: u64,
    seq: u64,
    at: usize,
}

impl Frames {
    /// Room for one long message of `bytes`, in fragments of [`FRAGMENT_BYTES`] or more.
    ///
    /// # Errors
    /// The system's, when it has no memory.
    pub(crate) fn for_fragments(bytes: usize) -> io::Result<Self> {
        let headers = (bytes / FRAGMENT_BYTES + 1) * MAX_HEADER_BYTES;
        let pages = Some(MmapMut::map_anon(bytes + headers)?);
        Ok(Self { pages, ..Self::default() })
    }

    /// Appends the next fragment of the only message, which carries what changed after `since`, up to
    /// `seq`. It may end within a character: only the whole message is UTF-8 (RFC 6455 section 5.6).
    pub(crate) fn push_fragment(&mut self, part: &[u8], is_final: bool, since: u64, seq: u64) {
        let opcode = if self.ends.is_empty() { Data::Text } else { Data::Continue };
        self.push(opcode, is_final, part, (since, seq));
    }

    /// Appends `text`, which carries the change `seq`, as one text frame.
    pub(crate) fn push_text(&mut self, text: &str, seq: u64) {
        self.push(Data::Text, true, text.as_bytes(), (seq.saturating_sub(1), seq));
    }

    /// Appends `text`, which carries the change `seq` and may be long, in fragments of up to
    /// [`FRAGMENT_BYTES`].
    pub(crate) fn push_long_text(&mut self, text: &str, seq: u64) {
        let parts = text.as_bytes().chunks(FRAGMENT_BYTES);
        let last = parts.len().saturating_sub(1);
        for (number, part) in parts.enumerate() {
            let opcode = if number == 0 { Data::Text } else { Data::Continue };
            self.push(opcode, number == last, part, (seq.saturating_sub(1), seq));
        }
    }

    fn push(&mut self, opcode: Data, is_final: bool, payload: &[u8], (since, seq): (u64, u64)) {
        let opcode = OpCode::Data(opcode);
        let header = FrameHeader { is_final, opcode, ..FrameHeader::default() };
        let start = self.bytes().len();
        let at = start + header.len(payload.len() as u64) + payload.len();
        let mut frame = match &mut self.pages {
            Some(pages) => &mut pages[start..at],
            None => {
                self.bytes.resize(at, 0);
                &mut self.bytes[start..]
            }
        };
        let formatted = header.format(payload.len() as u64, &mut frame);
        debug_assert!(formatted.is_ok(), "the frame has room for its header");
        frame.copy_from_slice(payload);
        self.ends.push(End { since, seq, at });
    }

    /// Appends those of `later` that carry a change after `seq`; not to mapped pages.
    pub(crate) fn append(&mut self, later: &Self, seq: u64) {
        debug_assert!(self.pages.is_none(), "mapped pages have no room to grow");
        let (from, to) = (later.start_after(seq), self.bytes.len());
        self.bytes.extend_from_slice(&later.bytes()[from..]);
        let ends = &later.ends[later.index_after(seq)..];
        self.ends.extend(ends.iter().map(|end| End { at: end.at - from + to, ..*end }));
    }

    /// All of them, as they go over the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.pages {
            Some(pages) => &pages[..self.ends.last().map_or(0, |end| end.at)],
            None => &self.bytes,
        }
    }

    /// How many frames carry a change after `seq`.
    pub(crate) fn count_after(&self, seq: u64) -> usize {
        self.ends.len() - self.index_after(seq)
    }

    /// The sequence number of the last frame.
    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.ends.last().map(|end| end.seq)
    }

    /// Whether the first frame with a change after `seq`, if there is one, also carries changes before
    /// that.
    pub(crate) fn is_within(&self, seq: u64) -> bool {
        self.ends.get(self.index_after(seq)).is_some_and(|end| end.since < seq)
    }

    /// Whether their memory is mapped pages.
    pub(crate) fn is_large(&self) -> bool {
        self.pages.is_some()
    }

    /// Where the first frame begins that carries a change after `seq`; without one, the end.
    pub(crate) fn start_after(&self, seq: u64) -> usize {
        match self.index_after(seq) {
            0 => 0,
            index => self.ends[index - 1].at,
        }
    }

    /// The first place at or after `offset` where a frame begins or the last one ends.
    pub(crate) fn boundary(&self, offset: usize) -> usize {
        match self.ends.get(self.ends.partition_point(|end| end.at < offset)) {
            Some(end) if offset > 0 => end.at,
            _ => offset,
        }
    }

    fn index_after(&self, seq: u64) -> usize {
        self.ends.partition_point(|end| end.seq <= seq)
    }
}

/// A Ping without payload.
pub(crate) fn ping() -> Vec<u8> {
    control(Frame::ping(Vec::new()))
}

/// A Close with this code, without a reason.
pub(crate) fn close(code: CloseCode) -> Vec<u8> {
    control(Frame::close(Some(CloseFrame { code, reason: "".into() })))
}

fn control(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    let formatted = frame.format(&mut bytes);
    debug_assert!(formatted.is_ok(), "a Vec takes every byte");
    bytes
}

/// Whether the frame that `bytes` starts with is a Close.
pub(crate) fn is_close(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| OpCode::from(first & 0x0F) == OpCode::Control(Control::Close))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame in front of every offset, at its start, within it and at its end.
    #[test]
    fn frames_are_found_by_offset_and_by_sequence_number() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let mut frames = Frames::default();
            frames.push_text(&"x".repeat(size), 3);
            let first = frames.bytes().len();
            let mut later = Frames::default();
            later.push_text("next", 7);
            frames.append(&later, 3);
            let end = first + 6;
            assert_eq!((frames.bytes().len(), frames.last_seq()), (end, Some(7)), "{size}");
            let boundaries = [0, 1, first, first + 1, end].map(|offset| frames.boundary(offset));
            assert_eq!(boundaries, [0, first, first, end, end], "{size}");
            let starts = [0, 2, 3, 6, 7, 8].map(|seq| frames.start_after(seq));
            assert_eq!(starts, [0, 0, first, first, end, end], "{size}");
            let counts = [0, 2, 3, 6, 7, 8].map(|seq| frames.count_after(seq));
            assert_eq!(counts, [2, 2, 1, 1, 0, 0], "{size}");
        }
    }

    #[test]
    fn a_long_message_is_fragments_of_one_message() {
        let mut frames = Frames::for_fragments(2 * FRAGMENT_BYTES).unwrap();
        frames.push_fragment(&[b'x'; FRAGMENT_BYTES], false, 2, 5);
        frames.push_fragment(&[b'y'; FRAGMENT_BYTES], true, 2, 5);
        let second = frames.boundary(1);
        assert_eq!(frames.boundary(second + 1), frames.bytes().len());
        // Text and not final, then continuation and final (section 5.2).
        assert_eq!((frames.bytes()[0], frames.bytes()[second]), (0x01, 0x80));
        assert_eq!(frames.bytes().len(), 2 * (FRAGMENT_BYTES + MAX_HEADER_BYTES));
        assert_eq!((frames.count_after(0), frames.last_seq()), (2, Some(5)));
        assert_eq!(
            [1, 2, 3, 4, 5].map(|seq| frames.is_within(seq)),
            [false, false, true, true, false]
        );
    }

    #[test]
    fn a_long_text_is_fragments_and_a_short_one_a_frame() {
        let mut frames = Frames::default();
        frames.push_long_text("short", 6);
        frames.push_long_text(&"x".repeat(FRAGMENT_BYTES), 7);
        frames.push_long_text(&"y".repeat(FRAGMENT_BYTES + 1), 8);
        let starts: Vec<_> = std::iter::successors(Some(0), |at| Some(frames.boundary(at + 1)))
            .take_while(|at| *at < frames.bytes().len())
            .map(|at| frames.bytes()[at])
            .collect();
        assert_eq!(starts, [0x81, 0x81, 0x01, 0x80]);
        assert_eq!((frames.count_after(7), frames.start_after(8)), (2, frames.bytes().len()));
    }

    #[test]
    fn a_close_is_told_from_a_ping() {
        assert!(is_close(&close(CloseCode::Away)));
        assert_eq!(&close(CloseCode::Away)[2..], 1001_u16.to_be_bytes());
        assert!(!is_close(&ping()));
        assert!(!is_close(&[]));
    }
}

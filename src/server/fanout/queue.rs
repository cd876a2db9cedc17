//! What one dashboard is still to be sent, in order: pieces of shared buffers, cut only where one
//! frame ends and the next begins. Pure; the socket is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::server::frame::Frames;

/// What a piece holds, and so where it may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The handshake's answer or control frames: goes out whole.
    Whole,
    /// Messages of one frame each: may end after any frame.
    Updates,
    /// One message in fragments: must be finished, but control frames may go between its
    /// fragments (RFC 6455 section 5.4).
    Snapshot,
}

/// A piece of a buffer that many dashboards may share.
#[derive(Debug, Clone)]
struct Piece {
    frames: Arc<Frames>,
    kind: Kind,
    /// What is not sent yet.
    start: usize,
    end: usize,
}

impl Piece {
    /// The first place at or after `start` where a frame ends or begins.
    fn boundary(&self) -> usize {
        self.frames.boundary(self.start)
    }
}

/// The queue of one dashboard.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    /// Bytes of [`Kind::Updates`] in `pieces`.
    update_bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of updates that wait: what grows with time. (A snapshot is one at a time, and
    /// control frames answer the dashboard's own, of which there is a limit.)
    pub(super) fn update_bytes(&self) -> usize {
        self.update_bytes
    }

    /// What to send next.
    pub(super) fn head(&self) -> Option<&[u8]> {
        self.pieces.front().map(|piece| &piece.frames.bytes()[piece.start..piece.end])
    }

    /// `sent` bytes of the head are out.
    pub(super) fn advance(&mut self, sent: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            if piece.kind == Kind::Updates {
                self.update_bytes -= sent;
            }
            piece.start += sent;
            if piece.start == piece.end {
                self.pieces.pop_front();
            }
        }
    }

    /// Appends `frames` from `start` on. `start` may lie within a frame that was begun without
    /// the queue.
    pub(super) fn push(&mut self, frames: Arc<Frames>, kind: Kind, start: usize) {
        let end = frames.bytes().len();
        if start < end {
            if kind == Kind::Updates {
                self.update_bytes += end - start;
            }
            self.pieces.push_back(Piece { frames, kind, start, end });
        }
    }

    /// Inserts a control frame as soon as the frame that was begun is out, and behind control
    /// frames that were there before.
    pub(super) fn push_control(&mut self, control: Vec<u8>) {
        let mut place = 0;
        if let Some(head) = self.pieces.front_mut() {
            let boundary = head.boundary();
            if boundary == head.end {
                place = 1;
            } else if boundary > head.start {
                let mut rest = head.clone();
                head.end = boundary;
                rest.start = boundary;
                self.pieces.insert(1, rest);
                place = 1;
            }
        }
        while self.pieces.get(place).is_some_and(|piece| piece.kind == Kind::Whole) {
            place += 1;
        }
        let end = control.len();
        let frames = Arc::new(Frames::whole(control));
        self.pieces.insert(place, Piece { frames, kind: Kind::Whole, start: 0, end });
    }

    /// Inserts a Close like [`Queue::push_control`], and drops what is behind it (RFC 6455
    /// section 5.5.1).
    pub(super) fn end_with(&mut self, close: Vec<u8>) {
        self.push_control(close);
        let last = self.pieces.iter().rposition(|piece| piece.kind == Kind::Whole);
        self.pieces.truncate(last.map_or(0, |last| last + 1));
        self.count_updates();
    }

    /// Drops every update that is not begun: the dashboard fell behind and will be sent what
    /// changed since. Returns the sequence number of the first one dropped.
    pub(super) fn drop_updates(&mut self) -> Option<u64> {
        let mut first_dropped = None;
        let mut kept = VecDeque::new();
        for piece in self.pieces.drain(..) {
            if piece.kind != Kind::Updates {
                kept.push_back(piece);
                continue;
            }
            let boundary = piece.boundary();
            if boundary < piece.end && first_dropped.is_none() {
                first_dropped = piece.frames.seq_from(boundary);
            }
            if boundary > piece.start {
                // A copy, so that a small rest does not keep a large buffer.
                let rest = piece.frames.bytes()[piece.start..boundary].to_vec();
                let end = rest.len();
                let frames = Arc::new(Frames::whole(rest));
                kept.push_back(Piece { frames, kind: Kind::Whole, start: 0, end });
            }
        }
        self.pieces = kept;
        self.count_updates();
        first_dropped
    }

    fn count_updates(&mut self) {
        let updates = self.pieces.iter().filter(|piece| piece.kind == Kind::Updates);
        self.update_bytes = updates.map(|piece| piece.end - piece.start).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One update for each text, numbered from `seq`.
    fn texts(texts: &[&str], seq: u64) -> Arc<Frames> {
        let mut frames = Frames::default();
        for (text, seq) in texts.iter().zip(seq..) {
            frames.push_text(text, seq);
        }
        Arc::new(frames)
    }

    /// Sends `step` bytes at a time and gives what a peer would read as frame payloads.
    fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(head) = queue.head() {
            let sent = step.min(head.len());
            out.extend_from_slice(&head[..sent]);
            queue.advance(sent);
        }
        assert_eq!(queue.update_bytes(), 0);
        out
    }

    fn payloads(mut bytes: &[u8]) -> Vec<String> {
        let mut payloads = Vec::new();
        while !bytes.is_empty() {
            let length = 2 + usize::from(bytes[1]);
            payloads.push(String::from_utf8_lossy(&bytes[2..length]).into_owned());
            bytes = &bytes[length..];
        }
        payloads
    }

    /// A control frame goes between frames, never into one, wherever the sending stopped.
    #[test]
    fn control_frames_go_between_frames() {
        for sent in 0..8 {
            let mut queue = Queue::default();
            queue.push(texts(&["ab", "cd"], 5), Kind::Updates, 0);
            let mut out = queue.head().unwrap()[..sent].to_vec();
            queue.advance(sent);
            queue.push_control(vec![0x8A, 1, b'1']);
            queue.push_control(vec![0x8A, 1, b'2']);
            out.extend(drain(&mut queue, 3));
            let expected = match sent {
                0 => ["1", "2", "ab", "cd"],
                1..=4 => ["ab", "1", "2", "cd"],
                _ => ["ab", "cd", "1", "2"],
            };
            assert_eq!(payloads(&out), expected, "after {sent} bytes");
        }
    }

    /// Whoever falls behind keeps the frame that was begun and no other, and resumes with the first
    /// one that was dropped.
    #[test]
    fn falling_behind_keeps_what_was_begun() {
        for (sent, expected, dropped) in [
            (0, vec![], 5),
            (1, vec!["ab"], 6),
            (4, vec!["ab"], 6),
            (5, vec!["ab", "cd"], 7),
            (8, vec!["ab", "cd"], 7),
        ] {
            let mut queue = Queue::default();
            queue.push(texts(&["ab", "cd"], 5), Kind::Updates, 0);
            queue.push(texts(&["ef"], 7), Kind::Updates, 0);
            let mut out = queue.head().unwrap()[..sent].to_vec();
            queue.advance(sent);
            assert_eq!(queue.drop_updates(), Some(dropped), "after {sent} bytes");
            assert_eq!(queue.drop_updates(), None, "there is no other");
            out.extend(drain(&mut queue, 100));
            assert_eq!(payloads(&out), expected, "after {sent} bytes");
        }
    }

    /// A snapshot stays, also where a control frame has cut it in two; what is behind it goes.
    #[test]
    fn a_snapshot_is_finished() {
        for sent in 0..8 {
            let mut queue = Queue::default();
            // Two frames stand for two fragments, so that the test stays small.
            queue.push(texts(&["ab", "cd"], 4), Kind::Snapshot, 0);
            let mut out = queue.head().unwrap()[..sent].to_vec();
            queue.advance(sent);
            queue.push_control(vec![0x8A, 1, b'p']);
            queue.push(texts(&["late"], 6), Kind::Updates, 0);
            assert_eq!(queue.drop_updates(), Some(6));
            out.extend(drain(&mut queue, 1));
            let expected = match sent {
                0 => ["p", "ab", "cd"],
                1..=4 => ["ab", "p", "cd"],
                _ => ["ab", "cd", "p"],
            };
            assert_eq!(payloads(&out), expected, "after {sent} bytes");
        }
    }

    /// An update that began before the queue and one that was skipped are not taken for dropped.
    #[test]
    fn a_piece_may_begin_behind_its_first_frames() {
        let mut queue = Queue::default();
        let frames = texts(&["ab", "cd", "ef"], 5);
        let start = frames.start_after(5);
        queue.push(frames, Kind::Updates, start + 1);
        assert_eq!(queue.drop_updates(), Some(7));
        assert_eq!(drain(&mut queue, 100), [2, b'c', b'd']);
    }

    /// After a Close comes nothing, not even the rest of a message whose frame was finished.
    #[test]
    fn nothing_follows_a_close() {
        let mut queue = Queue::default();
        queue.push(texts(&["ab", "cd"], 5), Kind::Updates, 1);
        queue.push(texts(&["ef"], 7), Kind::Updates, 0);
        queue.push_control(vec![0x8A, 1, b'p']);
        queue.end_with(vec![0x88, 0]);
        assert_eq!(queue.update_bytes(), 3);
        assert_eq!(drain(&mut queue, 100), [2, b'a', b'b', 0x8A, 1, b'p', 0x88, 0]);
    }

    /// A queue that starts within a frame finds that frame's end.
    #[test]
    fn a_rest_of_a_direct_write_is_finished() {
        let mut queue = Queue::default();
        queue.push(texts(&["ab", "cd"], 5), Kind::Updates, 2);
        queue.push_control(vec![0x8A, 1, b'p']);
        assert_eq!(drain(&mut queue, 100), [b'a', b'b', 0x8A, 1, b'p', 0x81, 2, b'c', b'd']);
    }
}

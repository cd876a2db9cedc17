//! What one dashboard is still owed, in order: pieces of shared buffers, cut only where one
//! frame ends and the next begins. Pure; the socket is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame;

/// What a piece holds, and so where it may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The handshake's answer or control frames: goes out whole.
    Whole,
    /// Messages of one frame each: may end after any frame.
    Updates,
    /// One message in fragments: once begun it must be finished, but control frames may go
    /// between its fragments (RFC 6455 section 5.4).
    Snapshot,
}

/// A piece of a buffer that many dashboards may share.
#[derive(Debug, Clone)]
struct Piece {
    bytes: Arc<Vec<u8>>,
    kind: Kind,
    /// What is not sent yet.
    start: usize,
    end: usize,
    /// A place at or before `start` where a frame begins.
    frame: usize,
    /// Whether anything of it was sent.
    begun: bool,
}

impl Piece {
    /// The first place at or after `start` where a frame ends or begins.
    fn boundary(&mut self) -> usize {
        if self.kind == Kind::Whole {
            return if self.begun { self.end } else { self.start };
        }
        while self.frame < self.start {
            self.frame += frame::length(&self.bytes[self.frame..self.end]);
        }
        self.frame
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

    /// Bytes of updates that are owed: what grows with time. (A snapshot is one at a time, and
    /// control frames answer the dashboard's own, of which there is a limit.)
    pub(super) fn update_bytes(&self) -> usize {
        self.update_bytes
    }

    /// Whether a snapshot is owed or on its way.
    pub(super) fn holds_snapshot(&self) -> bool {
        self.pieces.iter().any(|piece| piece.kind == Kind::Snapshot)
    }

    /// What to send next.
    pub(super) fn head(&self) -> Option<&[u8]> {
        self.pieces.front().map(|piece| &piece.bytes[piece.start..piece.end])
    }

    /// `sent` bytes of the head are out.
    pub(super) fn advance(&mut self, sent: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            if piece.kind == Kind::Updates {
                self.update_bytes -= sent;
            }
            piece.start += sent;
            piece.begun |= sent > 0;
            if piece.start == piece.end {
                self.pieces.pop_front();
            }
        }
    }

    /// Owes all of `bytes` from `start` on, behind everything else. `start` may lie within a
    /// frame that was begun without the queue.
    pub(super) fn push(&mut self, bytes: Arc<Vec<u8>>, kind: Kind, start: usize) {
        let end = bytes.len();
        if start < end {
            if kind == Kind::Updates {
                self.update_bytes += end - start;
            }
            self.pieces.push_back(Piece { bytes, kind, start, end, frame: 0, begun: start > 0 });
        }
    }

    /// Owes a control frame as soon as the frame that was begun is out, and behind control
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
        let bytes = Arc::new(control);
        let piece = Piece { bytes, kind: Kind::Whole, start: 0, end, frame: 0, begun: false };
        self.pieces.insert(place, piece);
    }

    /// Owes a Close like [`Queue::push_control`], and nothing behind it (RFC 6455 section 5.5.1).
    pub(super) fn end_with(&mut self, close: Vec<u8>) {
        self.push_control(close);
        let last = self.pieces.iter().rposition(|piece| piece.kind == Kind::Whole);
        self.pieces.truncate(last.map_or(0, |last| last + 1));
        self.count_updates();
    }

    /// Drops every message that is not begun: the dashboard fell behind and will get a snapshot
    /// instead. What is left ends with a message's end; control frames stay.
    pub(super) fn drop_messages(&mut self) {
        let mut kept = VecDeque::new();
        for mut piece in self.pieces.drain(..) {
            match piece.kind {
                Kind::Whole => kept.push_back(piece),
                // One that was cut for a control frame lies here in pieces, each of them begun.
                Kind::Snapshot if piece.begun => kept.push_back(piece),
                Kind::Updates if piece.begun => {
                    let boundary = piece.boundary();
                    if boundary > piece.start {
                        // A copy, so that a small rest does not keep a large buffer.
                        let rest = piece.bytes[piece.start..boundary].to_vec();
                        kept.push_back(Piece {
                            start: 0,
                            end: rest.len(),
                            bytes: Arc::new(rest),
                            kind: Kind::Whole,
                            frame: 0,
                            begun: true,
                        });
                    }
                }
                Kind::Snapshot | Kind::Updates => {}
            }
        }
        self.pieces = kept;
        self.count_updates();
    }

    fn count_updates(&mut self) {
        let updates = self.pieces.iter().filter(|piece| piece.kind == Kind::Updates);
        self.update_bytes = updates.map(|piece| piece.end - piece.start).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Arc<Vec<u8>> {
        let mut frames = Vec::new();
        for text in texts {
            frame::push_text(&mut frames, text);
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
            let length = frame::length(bytes);
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
            queue.push(texts(&["ab", "cd"]), Kind::Updates, 0);
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

    /// Whoever falls behind keeps the frame that was begun and nothing else.
    #[test]
    fn falling_behind_keeps_what_was_begun() {
        for (sent, expected) in
            [(0, vec![]), (1, vec!["ab"]), (4, vec!["ab"]), (5, vec!["ab", "cd"])]
        {
            let mut queue = Queue::default();
            queue.push(texts(&["ab", "cd"]), Kind::Updates, 0);
            queue.push(texts(&["ef"]), Kind::Updates, 0);
            let mut out = queue.head().unwrap()[..sent].to_vec();
            queue.advance(sent);
            queue.drop_messages();
            out.extend(drain(&mut queue, 100));
            assert_eq!(payloads(&out), expected, "after {sent} bytes");
        }
    }

    /// A snapshot that was begun is finished, also when a control frame has cut it in two; one
    /// that was not begun is dropped.
    #[test]
    fn a_begun_snapshot_is_finished() {
        let fragments = |text: &str| {
            // Two fragments by hand, so that the test stays small.
            Arc::new(
                [&[0x01, 2][..], &text.as_bytes()[..2], &[0x80, 2], &text.as_bytes()[2..]].concat(),
            )
        };
        let mut queue = Queue::default();
        queue.push(fragments("abcd"), Kind::Snapshot, 0);
        let mut out = queue.head().unwrap()[..1].to_vec();
        queue.advance(1);
        queue.push_control(vec![0x8A, 1, b'p']);
        queue.push(texts(&["late"]), Kind::Updates, 0);
        queue.push(fragments("efgh"), Kind::Snapshot, 0);
        queue.drop_messages();
        out.extend(drain(&mut queue, 1));
        assert_eq!(payloads(&out), ["ab", "p", "cd"]);
    }

    /// After a Close comes nothing, not even the rest of a message whose frame was finished.
    #[test]
    fn nothing_follows_a_close() {
        let mut queue = Queue::default();
        queue.push(texts(&["ab", "cd"]), Kind::Updates, 1);
        queue.push(texts(&["ef"]), Kind::Updates, 0);
        queue.push_control(vec![0x8A, 1, b'p']);
        queue.end_with(vec![0x88, 0]);
        assert_eq!(queue.update_bytes(), 3);
        assert_eq!(drain(&mut queue, 100), [2, b'a', b'b', 0x8A, 1, b'p', 0x88, 0]);
    }

    /// A queue that starts within a frame finds that frame's end.
    #[test]
    fn a_rest_of_a_direct_write_is_finished() {
        let mut queue = Queue::default();
        queue.push(texts(&["ab", "cd"]), Kind::Updates, 2);
        queue.push_control(vec![0x8A, 1, b'p']);
        assert_eq!(drain(&mut queue, 100), [b'a', b'b', 0x8A, 1, b'p', 0x81, 2, b'c', b'd']);
    }
}

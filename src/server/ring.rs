//! A feed's newest frames, for readers of which each keeps a cursor: the sequence number of the
//! last change that it has (a batch carries several). The hub keeps one ring a feed, with a cursor for each fanout thread;
//! each fanout thread keeps one a feed, with a cursor for each dashboard. A reader whose cursor is
//! older than the ring gets newest states from the registry instead. Holds frames, sends nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::server::frame::Frames;
use crate::server::limits::MAX_BATCH_BYTES;
use crate::wire::KIB;

/// Frames that a ring keeps for readers that are behind: about what a slow line is behind after a
/// second of a busy pool, beyond the kernel's own buffer.
pub(crate) const MAX_RING_BYTES: usize = 256 * KIB;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// The oldest first; a chunk has up to [`MAX_BATCH_BYTES`], or a single larger frame.
    chunks: VecDeque<Arc<Frames>>,
    /// A reader whose cursor is at or after this number finds here all that it lacks.
    start: u64,
}

impl Ring {
    /// Appends the message about change `seq`.
    pub(crate) fn push_text(&mut self, text: &str, seq: u64) {
        let mut frames = Frames::default();
        frames.push_text(text, seq);
        self.append(seq - 1, Arc::new(frames));
    }

    /// Appends `frames`, which hold what changed after `since`, and perhaps some that are here
    /// already. Small chunks become one, so that a burst costs one system call per dashboard; mapped
    /// pages have no room to grow.
    pub(crate) fn append(&mut self, since: u64, frames: Arc<Frames>) {
        // No reader can pass a gap.
        if since > self.end() {
            *self = Self { start: since, ..Self::default() };
        }
        let end = self.end();
        if frames.last_seq() <= Some(end) {
            return;
        }
        let known = frames.start_after(end);
        let bytes = frames.bytes().len() - known;
        let mut merged = Frames::default();
        let fits = |back: &mut Arc<Frames>| {
            !back.is_large() && back.bytes().len() + bytes <= MAX_BATCH_BYTES
        };
        if let Some(back) = self.chunks.pop_back_if(fits) {
            match Arc::try_unwrap(back) {
                Ok(back) => merged = back,
                Err(back) => merged.append(&back, 0),
            }
        } else if known == 0 {
            return self.chunks.push_back(frames);
        }
        merged.append(&frames, end);
        self.chunks.push_back(Arc::new(merged));
    }

    /// Whether no reader finds anything here.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The number of the last change that was appended.
    pub(crate) fn end(&self) -> u64 {
        self.chunks.back().and_then(|frames| frames.last_seq()).unwrap_or(self.start)
    }

    /// Whether a reader with this cursor finds here all that it lacks, and nothing that it has.
    pub(crate) fn reaches(&self, cursor: u64) -> bool {
        cursor >= self.start && self.after(cursor).is_none_or(|frames| !frames.is_within(cursor))
    }

    /// The next chunk for a reader with this cursor.
    pub(crate) fn after(&self, cursor: u64) -> Option<&Arc<Frames>> {
        let next = self.chunks.partition_point(|frames| frames.last_seq() <= Some(cursor));
        self.chunks.get(next)
    }

    /// Readers with cursors before this number lose their place with the next [`Ring::trim`].
    pub(crate) fn cut(&self) -> u64 {
        let (mut bytes, mut cut) = (self.bytes(), self.start);
        // The newest stays, however large: who is quick is to find it.
        for frames in self.chunks.iter().take(self.chunks.len().saturating_sub(1)) {
            if bytes <= MAX_RING_BYTES {
                break;
            }
            bytes -= frames.bytes().len();
            cut = frames.last_seq().unwrap_or(cut);
        }
        cut
    }

    /// Drops what no reader needs, `oldest` being the oldest cursor, and what is too much.
    pub(crate) fn trim(&mut self, oldest: u64) {
        let start = self.cut().max(oldest);
        while let Some(frames) = self.chunks.pop_front_if(|it| it.last_seq() <= Some(start)) {
            self.start = frames.last_seq().unwrap_or(self.start);
        }
    }

    fn bytes(&self) -> usize {
        self.chunks.iter().map(|frames| frames.bytes().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Ring {
        pub(crate) fn is_bounded(&self) -> bool {
            self.bytes() <= MAX_RING_BYTES || self.chunks.len() == 1
        }
    }

    fn frames(seqs: std::ops::RangeInclusive<u64>, bytes: usize) -> Arc<Frames> {
        let mut frames = Frames::default();
        for seq in seqs {
            frames.push_text(&"x".repeat(bytes), seq);
        }
        Arc::new(frames)
    }

    fn next(ring: &Ring, cursor: u64) -> Option<u64> {
        ring.after(cursor).and_then(|frames| frames.last_seq())
    }

    /// A small chunk joins the one before it, also where a reader still holds that one.
    #[test]
    fn readers_find_their_place_by_number() {
        let mut ring = Ring::default();
        ring.append(4, frames(5..=6, 10));
        let held = Arc::clone(ring.after(4).unwrap());
        ring.append(6, frames(7..=9, 10));
        ring.push_text("y", 10);
        assert_eq!((held.last_seq(), ring.chunks.len()), (Some(6), 1));
        assert_eq!(
            [4, 6, 9, 10, 11].map(|cursor| next(&ring, cursor)),
            [Some(10), Some(10), Some(10), None, None]
        );
        assert_eq!([3, 4, 11].map(|cursor| ring.reaches(cursor)), [false, true, true]);
        ring.append(10, frames(11..=11, MAX_BATCH_BYTES));
        assert_eq!(ring.chunks.len(), 2);
        ring.trim(9);
        assert!(ring.reaches(4), "of a chunk that somebody needs nothing is dropped");
        ring.trim(10);
        assert!(!ring.reaches(9) && ring.reaches(10));
        ring.trim(u64::MAX);
        assert_eq!((ring.bytes(), ring.start, ring.end()), (0, 11, 11));
    }

    /// A chunk may begin with what was appended before.
    #[test]
    fn nothing_is_appended_twice() {
        let mut ring = Ring::default();
        ring.append(0, frames(1..=2, 1));
        ring.append(2, frames(1..=3, 1));
        ring.append(3, frames(2..=3, 1));
        ring.append(3, frames(3..=4, MAX_BATCH_BYTES));
        assert_eq!([0, 3].map(|cursor| ring.after(cursor).unwrap().count_after(0)), [3, 1]);
        assert!(ring.is_bounded());
    }

    /// What comes after frames in mapped pages is a chunk of its own, however little they hold, and is
    /// read as it was appended.
    #[test]
    fn nothing_is_appended_to_mapped_pages() {
        for text in ["short", &"long ".repeat(1_000)] {
            let mut ring = Ring::default();
            let mut mapped = Frames::for_fragments(MAX_BATCH_BYTES).unwrap();
            mapped.push_fragment(&[b'x'; 1_000], true, 0, 130);
            ring.append(0, Arc::new(mapped));
            ring.push_text(text, 131);
            let (first, second) = (ring.after(0).unwrap(), ring.after(130).unwrap());
            assert_eq!((first.bytes().len(), first.last_seq()), (1_004, Some(130)));
            assert!(second.bytes()[second.start_after(130)..].ends_with(text.as_bytes()));
            assert_eq!((second.last_seq(), second.count_after(130)), (Some(131), 1));
        }
    }

    /// Who is behind loses its place when the ring is full, at the cursor that was foretold.
    #[test]
    fn a_ring_is_bounded() {
        let mut ring = Ring::default();
        let chunk = MAX_BATCH_BYTES - 10;
        for seq in 1..=5 {
            ring.append(seq - 1, frames(seq..=seq, chunk));
            let cut = ring.cut();
            assert_eq!(cut, u64::from(seq == 5), "{seq}");
            ring.trim(0);
            assert_eq!(ring.start, cut);
            assert!(ring.bytes() <= MAX_RING_BYTES);
        }
    }

    /// A frame that carries several changes is for who has none of them.
    #[test]
    fn a_reader_within_a_batch_is_not_reached() {
        let batch = |since, seq| {
            let mut frames = Frames::default();
            frames.push_fragment(b"x", false, since, seq);
            frames.push_fragment(b"y", true, since, seq);
            Arc::new(frames)
        };
        let mut ring = Ring::default();
        ring.append(4, batch(4, 8));
        ring.append(8, batch(8, 9));
        let reached = [3, 4, 5, 7, 8, 9, 10].map(|cursor| ring.reaches(cursor));
        assert_eq!(reached, [false, true, false, false, true, true, true]);
    }

    /// The newest stays, however large.
    #[test]
    fn the_newest_is_not_cut() {
        let mut ring = Ring::default();
        ring.append(0, frames(1..=1, 10));
        ring.append(1, frames(2..=2, 2 * MAX_RING_BYTES));
        ring.trim(0);
        assert_eq!((ring.start, ring.end(), ring.is_bounded()), (1, 2, true));
        ring.append(2, frames(3..=3, 10));
        ring.trim(0);
        assert_eq!((ring.start, ring.end()), (2, 3));
    }

    /// Nobody passes a gap.
    #[test]
    fn a_gap_empties_the_ring() {
        let mut ring = Ring::default();
        ring.append(0, frames(1..=3, 1));
        ring.append(5, frames(6..=6, 1));
        assert_eq!([2, 3, 4, 5].map(|cursor| ring.reaches(cursor)), [false, false, false, true]);
        ring.append(9, Arc::default());
        assert_eq!((ring.end(), ring.bytes(), ring.reaches(6)), (9, 0, false));
    }
}

//! Bytes of a client that wait for the rest of their request. Small ones lie in the heap. Large
//! ones get pages of their own, which the system has back the moment they are dropped: an allocator
//! keeps what it once had, and a flood of half bodies should leave nothing behind.

use std::ops::Deref;

use memmap2::MmapMut;

use crate::wire::KIB;

/// From here on bytes get pages of their own. Heartbeats hardly ever do, so they pay nothing.
const LARGE_BYTES: usize = 16 * KIB;

/// What is mapped at a time, at least. Pages that nothing was written to cost nothing.
const MAPPED_BYTES: usize = 128 * KIB;

/// The least by which small ones grow: a head that trickles in is not moved with every byte. Not
/// doubled, as a Vec would, since what is held is what the budget counts.
const MIN_GROWTH_BYTES: usize = 4 * KIB;

/// The usual size of a page, as which partly used ones count.
const PAGE_BYTES: usize = 4 * KIB;

/// See the module.
#[derive(Debug)]
pub(super) enum Held {
    /// In the heap.
    Small(Vec<u8>),
    /// In pages of its own, of which so many bytes are in use.
    Large(MmapMut, usize),
}

impl Default for Held {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl From<&[u8]> for Held {
    fn from(bytes: &[u8]) -> Self {
        let mut held = Self::default();
        held.extend_from_slice(bytes);
        held
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(pages, used) => &pages[..*used],
        }
    }
}

impl Held {
    /// Memory that this takes, in bytes.
    pub(super) fn cost_bytes(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.capacity(),
            Self::Large(_, used) => used.next_multiple_of(PAGE_BYTES),
        }
    }

    /// Puts `more` behind what is there.
    pub(super) fn extend_from_slice(&mut self, more: &[u8]) {
        let needed = self.len() + more.len();
        match self {
            Self::Large(pages, used) if needed <= pages.len() => {
                pages[*used..needed].copy_from_slice(more);
                *used = needed;
            }
            Self::Small(bytes) if needed <= LARGE_BYTES => grow(bytes, more),
            _ => self.move_to_pages(more),
        }
    }

    /// Removes the first `count` bytes.
    pub(super) fn remove_front(&mut self, count: usize) {
        match self {
            Self::Small(bytes) => {
                bytes.drain(..count);
            }
            // Moved, since pages that were written to stay in memory, and must not go uncounted.
            Self::Large(pages, used) => *self = Self::from(&pages[count..*used]),
        }
    }

    fn move_to_pages(&mut self, more: &[u8]) {
        let held = self.len();
        let needed = held + more.len();
        match MmapMut::map_anon(needed.next_power_of_two().max(MAPPED_BYTES)) {
            Ok(mut pages) => {
                pages[..held].copy_from_slice(self);
                pages[held..needed].copy_from_slice(more);
                *self = Self::Large(pages, needed);
            }
            // The system has no more mappings to give; the heap may still have room.
            Err(_) => {
                let mut bytes = self.to_vec();
                grow(&mut bytes, more);
                *self = Self::Small(bytes);
            }
        }
    }
}

fn grow(bytes: &mut Vec<u8>, more: &[u8]) {
    if bytes.is_empty() {
        bytes.reserve_exact(more.len());
    } else if bytes.capacity() - bytes.len() < more.len() {
        bytes.reserve_exact(more.len().max(MIN_GROWTH_BYTES));
    }
    bytes.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_whatever_its_size() {
        let bytes: Vec<u8> =
            (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for step in [1_000, 4 * KIB, LARGE_BYTES, LARGE_BYTES + 1, 100_000] {
            let mut held = Held::default();
            for piece in bytes.chunks(step) {
                held.extend_from_slice(piece);
            }
            assert!(*held == *bytes, "in steps of {step}");
            held.remove_front(123_456);
            assert!(*held == bytes[123_456..], "in steps of {step}");
            held.extend_from_slice(b"more");
            assert!(held.ends_with(b"more"));
        }
    }

    #[test]
    fn the_cost_is_close_to_what_is_held() {
        assert_eq!(Held::default().cost_bytes(), 0);
        assert_eq!(Held::from(&b"few"[..]).cost_bytes(), 3);
        let mut held = Held::from(&[0; LARGE_BYTES][..]);
        assert!(matches!(held, Held::Small(_)));
        held.extend_from_slice(b"x");
        assert!(matches!(held, Held::Large(..)));
        assert_eq!(held.cost_bytes(), LARGE_BYTES + PAGE_BYTES);
        held.remove_front(LARGE_BYTES);
        assert!(matches!(held, Held::Small(_)), "what was written to is given back, not forgotten");
        assert_eq!(held.cost_bytes(), 1);
    }
}

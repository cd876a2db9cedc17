//! A connection's input buffer. Up to 16 KiB lie in the heap; more gets pages of its own, which go
//! back to the system when they are dropped. Measured with 2,000 half bodies of 64 KiB and plain
//! Vecs: the allocator kept 64 MiB for good.

use std::ops::Deref;

use memmap2::MmapMut;

use crate::wire::KIB;

/// Beyond this, bytes get pages of their own. Heartbeats hardly ever do.
const LARGE_BYTES: usize = 16 * KIB;

/// What is mapped at a time, at least. Pages that nothing was written to cost nothing.
const MAPPED_BYTES: usize = 128 * KIB;

/// The least by which the heap's buffer grows: a head that trickles in is not moved with every
/// byte. Not doubled, as a Vec would, since what is allocated is what the budget counts.
const MIN_GROWTH_BYTES: usize = 4 * KIB;

/// The usual size of a page, as which partly used ones count.
const PAGE_BYTES: usize = 4 * KIB;

/// See the module.
#[derive(Debug)]
pub(super) enum Input {
    Heap(Vec<u8>),
    /// Pages, of which so many bytes are in use.
    Pages(MmapMut, usize),
}

impl Default for Input {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Pages(pages, used) => &pages[..*used],
        }
    }
}

impl Input {
    /// Memory that this takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Heap(bytes) => bytes.capacity(),
            Self::Pages(_, used) => used.next_multiple_of(PAGE_BYTES),
        }
    }

    pub(super) fn append(&mut self, more: &[u8]) {
        let needed = self.len() + more.len();
        match self {
            Self::Pages(pages, used) if needed <= pages.len() => {
                pages[*used..needed].copy_from_slice(more);
                *used = needed;
            }
            Self::Heap(bytes) if needed <= LARGE_BYTES => append_to_heap(bytes, more),
            _ => match MmapMut::map_anon(needed.next_power_of_two().max(MAPPED_BYTES)) {
                Ok(mut pages) => {
                    pages[..self.len()].copy_from_slice(self);
                    pages[self.len()..needed].copy_from_slice(more);
                    *self = Self::Pages(pages, needed);
                }
                // The system has no more mappings to give; the heap may still have room.
                Err(_) => {
                    let mut bytes = self.to_vec();
                    append_to_heap(&mut bytes, more);
                    *self = Self::Heap(bytes);
                }
            },
        }
    }

    /// Removes the first `count` bytes. An empty buffer holds no memory: most clients are idle.
    pub(super) fn remove_front(&mut self, count: usize) {
        match self {
            Self::Heap(bytes) if count < bytes.len() => {
                bytes.drain(..count);
            }
            // Moved, since pages that were written to stay in memory, and must not go uncounted.
            _ => {
                let mut rest = Self::default();
                rest.append(&self[count..]);
                *self = rest;
            }
        }
    }
}

fn append_to_heap(bytes: &mut Vec<u8>, more: &[u8]) {
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
            let mut input = Input::default();
            for piece in bytes.chunks(step) {
                input.append(piece);
            }
            assert!(*input == *bytes, "in steps of {step}");
            input.remove_front(123_456);
            assert!(*input == bytes[123_456..], "in steps of {step}");
            input.append(b"more");
            assert!(input.ends_with(b"more"));
        }
    }

    #[test]
    fn what_is_counted_is_close_to_what_is_held() {
        let mut input = Input::default();
        assert_eq!(input.held_bytes(), 0);
        input.append(b"few");
        assert_eq!(input.held_bytes(), 3);
        input.append(&[0; LARGE_BYTES]);
        assert!(matches!(input, Input::Pages(..)));
        assert_eq!(input.held_bytes(), LARGE_BYTES + PAGE_BYTES);
        input.remove_front(LARGE_BYTES);
        assert!(matches!(input, Input::Heap(_)), "what was written to is given back, not kept");
        assert_eq!(input.held_bytes(), 3);
        input.remove_front(3);
        assert_eq!(input.held_bytes(), 0);
    }
}

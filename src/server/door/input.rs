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

/// Partly used pages count whole.
const PAGE_BYTES: usize = 4 * KIB;

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
            Self::Heap(bytes) if needed <= LARGE_BYTES => bytes.extend_from_slice(more),
            Self::Pages(pages, used) if needed <= pages.len() => {
                pages[*used..needed].copy_from_slice(more);
                *used = needed;
            }
            _ => match MmapMut::map_anon(needed.next_power_of_two().max(MAPPED_BYTES)) {
                Ok(mut pages) => {
                    pages[..self.len()].copy_from_slice(self);
                    pages[self.len()..needed].copy_from_slice(more);
                    *self = Self::Pages(pages, needed);
                }
                // The system has no more mappings to give; the heap may still have room.
                Err(_) => *self = Self::Heap([&**self, more].concat()),
            },
        }
    }

    /// Removes the first `count` bytes. An empty buffer holds no memory: most clients are idle.
    pub(super) fn remove_front(&mut self, count: usize) {
        match self {
            Self::Heap(bytes) if count < bytes.len() => drop(bytes.drain(..count)),
            // Moved, since pages that were written to stay in memory, and must not go uncounted.
            _ => {
                let mut rest = Self::default();
                rest.append(&self[count..]);
                *self = rest;
            }
        }
    }
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
        input.append(b"a few bytes");
        assert_eq!(input.held_bytes(), 11);
        input.append(&[0; LARGE_BYTES]);
        assert!(matches!(input, Input::Pages(..)));
        assert_eq!(input.held_bytes(), LARGE_BYTES + PAGE_BYTES);
        input.remove_front(LARGE_BYTES);
        assert!(matches!(input, Input::Heap(_)), "what was written to is given back, not kept");
        assert_eq!(input.held_bytes(), 11);
        input.remove_front(11);
        assert_eq!(input.held_bytes(), 0);
    }
}

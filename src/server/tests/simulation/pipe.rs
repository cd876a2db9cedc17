//! A socket with a bandwidth, and the frames that arrive at its far end.

use std::io;
use std::sync::Mutex;

use crate::server::event::WriteSide;

/// A socket that takes as many bytes as it was given room for.
#[derive(Debug, Default)]
pub(crate) struct Pipe(Mutex<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    room: usize,
    bytes: Vec<u8>,
    /// Bytes in all, of which only the last ones are kept.
    counted: Option<usize>,
    /// It did not take all of what it was last offered.
    is_full: bool,
    has_ended: bool,
}

/// The end of a message, with its sequence number.
const TAIL_BYTES: usize = 64;

impl Pipe {
    /// Room for so many bytes more.
    pub(crate) fn give_room(&self, bytes: usize) {
        self.0.lock().unwrap().room += bytes;
    }

    /// Room for so many bytes more, up to `most` in all.
    pub(super) fn give_room_up_to(&self, bytes: usize, most: usize) {
        let mut state = self.0.lock().unwrap();
        state.room = state.room.saturating_add(bytes).min(most);
    }

    /// What has arrived.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().bytes)
    }

    /// From now on only the number of bytes and the last ones are kept.
    pub(super) fn only_count(&self) {
        self.0.lock().unwrap().counted = Some(0);
    }

    pub(super) fn counted(&self) -> Option<usize> {
        self.0.lock().unwrap().counted
    }

    /// Whether it waits for the reader, and not for the server to try again.
    pub(super) fn is_blocked(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.is_full && state.room == 0
    }

    /// Whether it did not take all of what it was last offered, and whether it has ended.
    pub(super) fn is_full_or_ended(&self) -> (bool, bool) {
        let state = self.0.lock().unwrap();
        (state.is_full, state.has_ended)
    }

    pub(super) fn ends_with(&self, end: &str) -> bool {
        self.0.lock().unwrap().bytes.ends_with(end.as_bytes())
    }
}

impl WriteSide for Pipe {
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let sent = bytes.len().min(state.room);
        state.room -= sent;
        state.is_full = sent < bytes.len();
        if let Some(counted) = &mut state.counted {
            *counted += sent;
            state.bytes = bytes[sent.saturating_sub(TAIL_BYTES)..sent].to_vec();
        } else {
            state.bytes.extend_from_slice(&bytes[..sent]);
        }
        Ok(sent)
    }

    fn end(&self) {
        self.0.lock().unwrap().has_ended = true;
    }
}

/// A frame that has arrived.
pub(super) struct Frame<'a> {
    pub(super) is_final: bool,
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// With its header.
    pub(super) bytes: usize,
}

impl<'a> Frame<'a> {
    /// The next frame (RFC 6455 section 5.2), if it is whole, and what is behind it.
    pub(super) fn split(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let [first, second, ..] = *input else { return None };
        let length_bytes = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let extended = input.get(2..2 + length_bytes)?.iter();
        let extended = extended.fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = if length_bytes == 0 { usize::from(second) } else { extended };
        let (frame, behind) = input.split_at_checked(2 + length_bytes + length)?;
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x7F);
        let payload = &frame[2 + length_bytes..];
        Some((Self { is_final, opcode, payload, bytes: frame.len() }, behind))
    }
}

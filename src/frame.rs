//! WebSocket frames (RFC 6455 section 5.2) as the server sends them: unmasked, made once, kept
//! as bytes. Formats and measures; sends nothing.

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use crate::limits::KIB;

/// A long message goes out in fragments of this many bytes, so that a Pong or a Close need not
/// wait for the end of a snapshot on a slow line (RFC 6455 section 5.4).
const FRAGMENT_BYTES: usize = 64 * KIB;

/// Appends `text` as one text frame.
pub fn push_text(frames: &mut Vec<u8>, text: &str) {
    push(frames, Data::Text, true, text.as_bytes());
}

/// Appends `text` as one message of one or more frames.
pub fn push_fragmented(frames: &mut Vec<u8>, text: &str) {
    // A fragment may end within a character: only the whole message is UTF-8 (section 5.6).
    let mut fragments = text.as_bytes().chunks(FRAGMENT_BYTES).peekable();
    let mut opcode = Data::Text;
    while let Some(fragment) = fragments.next() {
        push(frames, opcode, fragments.peek().is_none(), fragment);
        opcode = Data::Continue;
    }
}

fn push(frames: &mut Vec<u8>, opcode: Data, is_final: bool, payload: &[u8]) {
    let header = FrameHeader { is_final, opcode: OpCode::Data(opcode), ..FrameHeader::default() };
    let formatted = header.format(payload.len() as u64, frames);
    debug_assert!(formatted.is_ok(), "a Vec takes every byte");
    frames.extend_from_slice(payload);
}

/// A Ping without payload.
#[must_use]
pub fn ping() -> Vec<u8> {
    control(Frame::ping(Vec::new()))
}

/// A Close with this code, without a reason.
#[must_use]
pub fn close(code: CloseCode) -> Vec<u8> {
    control(Frame::close(Some(CloseFrame { code, reason: "".into() })))
}

fn control(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    let formatted = frame.format(&mut bytes);
    debug_assert!(formatted.is_ok(), "a Vec takes every byte");
    bytes
}

/// Whether the frame that `bytes` starts with is a Close.
#[must_use]
pub fn is_close(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| OpCode::from(first & 0x0F) == OpCode::Control(Control::Close))
}

/// The length of the frame that `frames` starts with, of frames as this module makes them.
/// Of what is not a whole frame: all of it.
#[must_use]
pub fn length(frames: &[u8]) -> usize {
    let mut cursor = std::io::Cursor::new(frames);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((_, payload))) => {
            let whole = cursor.position().saturating_add(payload);
            usize::try_from(whole).unwrap_or(usize::MAX).min(frames.len())
        }
        Ok(None) | Err(_) => frames.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_measured_as_they_were_made() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let mut frames = Vec::new();
            push_text(&mut frames, &"x".repeat(size));
            let first = frames.len();
            push_text(&mut frames, "next");
            assert_eq!(length(&frames), first, "{size}");
            assert_eq!(length(&frames[first..]), 6);
        }
        assert_eq!(length(&ping()), 2);
        assert_eq!(length(&[0x81]), 1);
    }

    #[test]
    fn a_long_message_is_fragments_of_one_message() {
        let mut frames = Vec::new();
        push_fragmented(&mut frames, &"é".repeat(FRAGMENT_BYTES));
        let mut rest = &frames[..];
        let mut first_bytes = Vec::new();
        while !rest.is_empty() {
            first_bytes.push(rest[0]);
            rest = &rest[length(rest)..];
        }
        // Text and not final, then continuation and final (section 5.2).
        assert_eq!(first_bytes, [0x01, 0x80]);
    }

    #[test]
    fn a_close_is_told_from_a_ping() {
        assert!(is_close(&close(CloseCode::Away)));
        assert_eq!(&close(CloseCode::Away)[2..], 1001_u16.to_be_bytes());
        assert!(!is_close(&ping()));
        assert!(!is_close(&[]));
    }
}

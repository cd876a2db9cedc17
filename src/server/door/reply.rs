//! The heads of answers on the public port: what a worker (or the door itself) says, and what
//! belongs to the connection added to it. Composes and reads bytes; owns no socket.

use std::time::{Duration, UNIX_EPOCH};

use crate::runtime::clock::UnixMillis;

/// Largest head that a worker may answer with, in bytes: its own few headers and a cookie.
pub(super) const MAX_ANSWER_HEAD_BYTES: usize = 8 * crate::wire::KIB;

/// The head of an answer in the form that [`crate::wire::response::Response::to_bytes`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerHead<'a> {
    pub(super) status: u16,
    /// Of the body behind this head.
    pub(super) body_bytes: usize,
    /// Whether [`AnswerHead::write`] leaves `Content-Length` out.
    pub(super) omits_length: bool,
    /// Status line and headers, each with its CR LF; no empty line.
    lines: &'a [u8],
}

/// Bytes that are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

impl<'a> AnswerHead<'a> {
    /// Splits the head that `data` begins with from what follows; `None` while it is not whole.
    pub(super) fn split(data: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Nonsense> {
        let within = &data[..data.len().min(MAX_ANSWER_HEAD_BYTES)];
        let Some(end) = within.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if within.len() < data.len() { Err(Nonsense) } else { Ok(None) };
        };
        let (lines, rest) = (&data[..end + 2], &data[end + 4..]);
        let status = lines
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|line| line.get(..3))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .filter(|status| (200..600).contains(status))
            .ok_or(Nonsense)?;
        let body_bytes = match (status, field(lines, b"content-length")) {
            // No body whatever the head says (RFC 9112 section 6.3).
            (204 | 304, _) => 0,
            (_, Some(digits)) => {
                std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).ok_or(Nonsense)?
            }
            (_, None) => return Err(Nonsense),
        };
        Ok(Some((Self { status, body_bytes, omits_length: false, lines }, rest)))
    }

    /// Appends this head to `out` as the client gets it, empty line included. `cors` are lines.
    pub(super) fn write(&self, out: &mut Vec<u8>, date: &str, cors: &str, close: bool) {
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            let omitted = self.omits_length && value(line, b"content-length").is_some();
            if !is_the_doors(line) && !omitted {
                out.extend_from_slice(line);
            }
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
        out.extend_from_slice(cors.as_bytes());
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn field<'a>(lines: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines.split(|byte| *byte == b'\n').find_map(|line| Some(value(line, name)?.trim_ascii()))
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    rest.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name))
}

/// Headers that the door says itself, of the connection and not of the answer.
fn is_the_doors(line: &[u8]) -> bool {
    match line.first() {
        Some(b'D' | b'd') => value(line, b"date").is_some(),
        // The offer that goes with a 426 (RFC 9110 section 7.8) is the answer's own.
        Some(b'C' | b'c') => {
            value(line, b"connection").is_some_and(|value| value.trim_ascii() != b"upgrade")
        }
        Some(b'S' | b's') => value(line, b"server").is_some(),
        Some(b'X' | b'x') => value(line, b"x-content-type-options").is_some(),
        _ => false,
    }
}

/// The value of `Date` (RFC 9110 section 6.6.1), written once a second and not once an answer.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// Brings the text up to `now`.
    pub(super) fn update(&mut self, now: UnixMillis) {
        // The last second that HTTP's four-digit year can write.
        const LAST: u64 = 253_402_300_799;
        let second = (now.0 / 1_000).min(LAST);
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::response::{Body, Response};

    fn head(bytes: &[u8]) -> AnswerHead<'_> {
        AnswerHead::split(bytes).unwrap().unwrap().0
    }

    #[test]
    fn our_own_answers_are_read_whole_or_not_at_all() {
        let bytes = Response::json(200, Body::Static(b"{}")).to_bytes();
        for length in 0..bytes.len() - 2 {
            assert_eq!(AnswerHead::split(&bytes[..length]), Ok(None));
        }
        let (head, rest) = AnswerHead::split(&bytes).unwrap().unwrap();
        assert_eq!((head.status, head.body_bytes, rest), (200, 2, &b"{}"[..]));
        let empty = Response {
            status: crate::wire::response::Status(304),
            headers: vec![],
            body: Body::Static(b""),
        };
        assert_eq!(self::head(&empty.to_bytes()).body_bytes, 0);
    }

    #[test]
    fn nonsense_is_known_as_such() {
        for bytes in [
            &b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 2 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &[b'a'; MAX_ANSWER_HEAD_BYTES + 1],
        ] {
            assert_eq!(AnswerHead::split(bytes), Err(Nonsense), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_door_adds_what_is_the_connections_and_nothing_twice() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ndate: y\r\nConnection: z\r\n\
                      X-Content-Type-Options: nosniff\r\nX-A: b\r\nContent-Length: 0\r\n\r\n";
        let mut out = Vec::new();
        head(bytes).write(&mut out, "now", "Vary: z\r\n", true);
        assert_eq!(
            out,
            b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 0\r\nDate: now\r\n\
              X-Content-Type-Options: nosniff\r\nVary: z\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn the_date_is_written_as_http_wants_it() {
        let mut date = Date::default();
        date.update(UnixMillis(1_736_246_100_999));
        assert_eq!(date.as_str(), "Tue, 07 Jan 2025 10:35:00 GMT");
        date.update(UnixMillis(1_736_246_101_000));
        assert_eq!(date.as_str(), "Tue, 07 Jan 2025 10:35:01 GMT");
        date.update(UnixMillis(u64::MAX));
        assert!(date.as_str().contains("9999"));
    }
}

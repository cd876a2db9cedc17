//! One persistent connection to tiny_http: requests of many clients go out one behind the
//! other, answers come back in the same order. Owns the private socket and the order; knows
//! clients by their [`Ticket`] only.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::listen::Backoff;
use super::reply::{AnswerHead, Nonsense};
use crate::wire::KIB;

/// Requests that tiny_http has not taken yet, in bytes, beyond which a pipe takes no more of
/// them: they wait with their clients instead, where one can be closed to make room.
const MAX_QUEUED_BYTES: usize = 256 * KIB;

/// What a pipe keeps of its buffer when it is empty, in bytes: a turn's worth of heartbeats.
const USUAL_UNSENT_BYTES: usize = 64 * KIB;

/// First wait before a broken pipe is made anew.
const MIN_RETRY: Duration = Duration::from_millis(10);

/// Longest wait: tiny_http is in this process and away only while something is very wrong.
const MAX_RETRY: Duration = Duration::from_secs(1);

/// Failures in a row, half a minute of them, after which making a pipe anew is given up. Counted
/// and not timed, so that a stall of ours is none.
const MAX_FAILURES: u32 = 30;

/// Bound of the doubling of patience with a quiet pipe: to hours.
const MAX_DOUBLINGS: u32 = 10;

/// Whose request it is. A client that is gone, or was told 503 meanwhile, does not match
/// any more, and what comes for it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The client's place in the door's table, which another may have taken meanwhile...
    pub(super) slot: usize,
    /// ...but not with this number, which is the stamp's.
    pub(super) number: u64,
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) ticket: Ticket,
    /// There in an answer's first piece.
    pub(super) head: Option<AnswerHead<'a>>,
    pub(super) body: &'a [u8],
    /// Whether this is the answer's last piece.
    pub(super) last: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    path: PathBuf,
    token: Token,
    link: Option<UnixStream>,
    retry: Backoff,
    /// How often in a row it could not be made anew.
    failures: u32,
    /// Requests that were taken and whose answer has not begun, in order.
    in_flight: VecDeque<Ticket>,
    /// The answer whose body is coming, and how much of it is still to come.
    body: Option<(Ticket, usize)>,
    /// Since when nothing has come although something is in flight.
    quiet_since: Instant,
    /// How often in a row this pipe was given up for being quiet.
    silences: u32,
    unsent: Vec<u8>,
    sent: usize,
    /// The beginning of an answer's head.
    partial: Vec<u8>,
    /// Readiness is edge-triggered: whether there may be more to read...
    readable: bool,
    /// ...and whether the other side has closed, which a short read does not show.
    half_closed: bool,
}

impl Pipe {
    pub(super) fn new(path: PathBuf, token: Token, now: Instant) -> Self {
        Self {
            path,
            token,
            link: None,
            retry: Backoff::new(MIN_RETRY, MAX_RETRY),
            failures: 0,
            in_flight: VecDeque::new(),
            body: None,
            quiet_since: now,
            silences: 0,
            unsent: Vec::new(),
            sent: 0,
            partial: Vec::new(),
            readable: false,
            half_closed: false,
        }
    }

    pub(super) fn note_readable(&mut self, half_closed: bool) {
        self.readable = true;
        self.half_closed |= half_closed;
    }

    /// Whether a read may bring something.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Requests taken and not yet answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.link.is_some() && self.unsent.len() - self.sent < MAX_QUEUED_BYTES
    }

    /// What is on its way, in bytes.
    pub(super) fn held(&self) -> usize {
        self.unsent.len() + self.partial.len()
    }

    /// When this pipe wants to be looked at although nothing comes: to be made anew, or to be
    /// given up because nothing has come for `patience`, which doubles each time in a row: what
    /// was given up stays in tiny_http's queue, and must not pile up there when all workers hang.
    pub(super) fn deadline(&self, now: Instant, patience: Duration) -> Option<Instant> {
        match &self.link {
            None => Some(self.retry.until().unwrap_or(now)),
            Some(_) if self.is_owed() => {
                let doubled = 1 << self.silences.min(MAX_DOUBLINGS);
                Some(self.quiet_since + patience.saturating_mul(doubled))
            }
            Some(_) => None,
        }
    }

    fn is_owed(&self) -> bool {
        !self.in_flight.is_empty() || self.body.is_some()
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Makes the pipe anew, or notes when to try again.
    ///
    /// # Errors
    /// The last try's, when there is nothing to hope for: the socket is gone or nobody listens
    /// on it, or all of [`MAX_FAILURES`] tries failed.
    pub(super) fn connect(&mut self, registry: &Registry, now: Instant) -> io::Result<()> {
        let connected = UnixStream::connect(&self.path).and_then(|mut link| {
            registry.register(&mut link, self.token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(link)
        });
        match connected {
            Ok(link) => {
                self.link = Some(link);
                self.failures = 0;
            }
            Err(error) => {
                self.failures += 1;
                let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
                if gone.contains(&error.kind()) || self.failures >= MAX_FAILURES {
                    return Err(error);
                }
                if self.retry.is_fresh() {
                    log::warn!("cannot reach the workers, trying again: {error}");
                }
                self.retry.fail(now);
            }
        }
        Ok(())
    }

    /// Takes a whole request; it goes out with the next [`Pipe::flush`].
    pub(super) fn push(&mut self, ticket: Ticket, request: &[u8], now: Instant) {
        if !self.is_owed() {
            self.quiet_since = now;
        }
        self.in_flight.push_back(ticket);
        self.unsent.extend_from_slice(request);
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        while self.sent < self.unsent.len() {
            match link.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.unsent.clear();
        // One burst must not cost its memory for ever.
        self.unsent.shrink_to(USUAL_UNSENT_BYTES);
        Ok(())
    }

    /// Reads once. Returns the bytes that came, behind what was left over of the last read, in
    /// `scratch` or in `joined`; `None` when nothing came.
    pub(super) fn read<'a>(
        &mut self,
        scratch: &'a mut [u8],
        joined: &'a mut Vec<u8>,
        now: Instant,
    ) -> io::Result<Option<&'a [u8]>> {
        let Some(link) = &mut self.link else {
            self.readable = false;
            return Ok(None);
        };
        let count = loop {
            match link.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        // A short read has emptied the socket: no second read only to be told so.
        self.readable = count == scratch.len() || self.half_closed;
        self.quiet_since = now;
        if self.partial.is_empty() {
            return Ok(Some(&scratch[..count]));
        }
        *joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(&scratch[..count]);
        Ok(Some(joined))
    }

    /// Takes the next piece of an answer off `data`; `None` when what is left is the beginning
    /// of a head, which is kept for the next read.
    pub(super) fn next_piece<'a>(
        &mut self,
        data: &mut &'a [u8],
    ) -> Result<Option<Piece<'a>>, Nonsense> {
        if data.is_empty() {
            return Ok(None);
        }
        if let Some((ticket, left)) = self.body.take() {
            let body = take(data, left);
            return Ok(Some(self.piece(ticket, None, body, left)));
        }
        let Some((head, rest)) = AnswerHead::split(data)? else {
            self.partial = data.to_vec();
            return Ok(None);
        };
        let ticket = self.in_flight.pop_front().ok_or(Nonsense)?;
        self.retry.reset();
        self.silences = 0;
        *data = rest;
        let body = take(data, head.body_bytes);
        Ok(Some(self.piece(ticket, Some(head), body, head.body_bytes)))
    }

    fn piece<'a>(
        &mut self,
        ticket: Ticket,
        head: Option<AnswerHead<'a>>,
        body: &'a [u8],
        left: usize,
    ) -> Piece<'a> {
        let left = left - body.len();
        self.body = (left > 0).then_some((ticket, left));
        Piece { ticket, head, body, last: left == 0 }
    }

    /// Counts a silence that is the reason to [`Pipe::fail`].
    pub(super) fn note_silence(&mut self) {
        self.silences += 1;
    }

    /// Gives the socket up and says who waits in vain: first the one whose answer was cut
    /// short, if any, then those without one.
    pub(super) fn fail(&mut self, now: Instant) -> impl Iterator<Item = Ticket> + use<> {
        self.link = None;
        self.readable = false;
        self.half_closed = false;
        self.retry.fail(now);
        self.unsent = Vec::new();
        self.sent = 0;
        self.partial = Vec::new();
        let cut = self.body.take().map(|(ticket, _)| ticket);
        cut.into_iter().chain(std::mem::take(&mut self.in_flight))
    }
}

fn take<'a>(data: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(most.min(data.len()));
    *data = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    fn ticket(number: u64) -> Ticket {
        Ticket { slot: 0, number }
    }

    fn pipe() -> (Pipe, Instant) {
        let now = Clock::start().now();
        (Pipe::new(PathBuf::new(), Token(0), now), now)
    }

    /// Feeds `data` cut into `size` bytes at a time; gives back status and body per ticket.
    fn answers(pipe: &mut Pipe, data: &[u8], size: usize) -> Vec<(u64, u16, Vec<u8>)> {
        let mut answers: Vec<(u64, u16, Vec<u8>)> = Vec::new();
        let mut held = Vec::new();
        for chunk in data.chunks(size) {
            held.extend_from_slice(chunk);
            let whole = std::mem::take(&mut held);
            let mut rest = whole.as_slice();
            while let Some(piece) = pipe.next_piece(&mut rest).unwrap() {
                if let Some(head) = piece.head {
                    answers.push((piece.ticket.number, head.status, Vec::new()));
                }
                let answer = answers.last_mut().unwrap();
                assert_eq!(answer.0, piece.ticket.number);
                answer.2.extend_from_slice(piece.body);
            }
            held = std::mem::take(&mut pipe.partial);
        }
        answers
    }

    #[test]
    fn answers_find_their_askers_in_order_however_they_are_cut() {
        let data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
                     HTTP/1.1 204 No Content\r\n\r\n\
                     HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        for size in 1..data.len() {
            let (mut pipe, now) = pipe();
            for number in [4, 9, 11] {
                pipe.push(ticket(number), b"request", now);
            }
            let expected = vec![(4, 200, b"hello".to_vec()), (9, 204, vec![]), (11, 404, vec![])];
            assert_eq!(answers(&mut pipe, data, size), expected, "{size}");
            assert_eq!(pipe.in_flight(), 0);
        }
    }

    #[test]
    fn patience_with_a_quiet_pipe_doubles_until_something_comes() {
        let (mut pipe, now) = pipe();
        let patience = Duration::from_secs(10);
        let (link, _workers) = UnixStream::pair().unwrap();
        pipe.link = Some(link);
        assert_eq!(pipe.deadline(now, patience), None, "nothing is owed");
        pipe.push(ticket(1), b"request", now);
        for seconds in [10, 20, 40] {
            let deadline = now + Duration::from_secs(seconds);
            assert_eq!(pipe.deadline(now, patience), Some(deadline));
            pipe.note_silence();
        }
        let mut data = &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"[..];
        pipe.next_piece(&mut data).unwrap();
        assert_eq!(pipe.deadline(now, patience), Some(now + patience), "a body is owed");
    }

    #[test]
    fn a_pipe_that_cannot_be_made_anew_is_given_up_after_many_tries_or_when_it_is_gone() {
        let poll = mio::Poll::new().unwrap();
        let mut now = Clock::start().now();
        // A path that no socket can have fails, and not because it is gone.
        let mut pipe = Pipe::new(PathBuf::from("x".repeat(200)), Token(0), now);
        for failure in 1..MAX_FAILURES {
            assert!(pipe.connect(poll.registry(), now).is_ok(), "failure {failure}");
            let retry = pipe.deadline(now, Duration::ZERO).unwrap();
            assert!(retry > now && retry <= now + MAX_RETRY);
            now = retry;
        }
        assert!(pipe.connect(poll.registry(), now).is_err());
        let directory = tempfile::tempdir().unwrap();
        let mut gone = Pipe::new(directory.path().join("none"), Token(0), now);
        assert_eq!(gone.connect(poll.registry(), now).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_nonsense() {
        let (mut pipe, _) = pipe();
        let mut data = &b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..];
        assert_eq!(pipe.next_piece(&mut data), Err(Nonsense));
    }

    #[test]
    fn who_waits_on_a_pipe_that_fails_is_named_the_cut_short_first() {
        let (mut pipe, now) = pipe();
        for number in [1, 2, 3] {
            pipe.push(ticket(number), b"request", now);
        }
        let mut data = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"[..];
        let piece = pipe.next_piece(&mut data).unwrap().unwrap();
        assert!(!piece.last);
        assert_eq!(pipe.next_piece(&mut data), Ok(None));
        let numbers: Vec<u64> = pipe.fail(now).map(|ticket| ticket.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(pipe.held(), 0);
        assert_eq!(pipe.deadline(now, Duration::ZERO), Some(now + MIN_RETRY));
    }
}

//! The way to one tiny_http server: requests of many clients go out one behind the other over a
//! persistent Unix connection, responses come back over a channel, in any order. Owns that
//! connection, the channel's receiving end, and which requests are in flight or wait; knows a client
//! by its slot and the number of its request.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use crossbeam_channel::Receiver;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::listener::Backoff;
use super::nonblocking;
use crate::wire::KIB;
use crate::wire::response::Response;

/// Requests that tiny_http has not taken yet, in bytes, beyond which a pipe takes no more of
/// them: they wait with their clients instead, where one can be closed to make room.
const MAX_UNSENT_BYTES: usize = 256 * KIB;

/// What a pipe keeps of its buffer when it is empty, in bytes: a turn's worth of heartbeats.
const USUAL_UNSENT_BYTES: usize = 64 * KIB;

/// Failures without a response between them, half a minute of them, after which connecting is given
/// up. Counted and not timed, so that a stall of ours is none.
const MAX_FAILURES: u32 = 30;

#[derive(Debug)]
pub(super) struct Pipe {
    path: PathBuf,
    token: Token,
    socket: Option<UnixStream>,
    backoff: Backoff,
    pub(super) responses: Receiver<(u64, Response)>,
    /// Slots of the requests that tiny_http or a worker has, by number. Bounds tiny_http's queue.
    in_flight: HashMap<u64, usize>,
    max_in_flight: usize,
    /// Slots of the requests that wait for room, by number: first come, first served. Who stops
    /// waiting is removed: while the workers hang, those who come and go would fill it.
    pub(super) waiting: BTreeMap<u64, usize>,
    pub(super) unsent: Vec<u8>,
    /// Whether the socket takes no more, and reports when it does.
    is_blocked: bool,
}

impl Pipe {
    pub(super) fn new(
        path: PathBuf,
        token: Token,
        responses: Receiver<(u64, Response)>,
        max_in_flight: usize,
    ) -> Self {
        Self {
            path,
            token,
            socket: None,
            backoff: Backoff::default(),
            responses,
            in_flight: HashMap::new(),
            max_in_flight,
            waiting: BTreeMap::new(),
            unsent: Vec::new(),
            is_blocked: false,
        }
    }

    /// None while it is connected.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.socket.is_none().then(|| self.backoff.until.unwrap_or(now))
    }

    /// Connects if it is time to. Fails when trying again is of no use: the socket is gone or not
    /// listened on, or it was the last of [`MAX_FAILURES`].
    pub(super) fn connect(&mut self, registry: &Registry, now: Instant) -> io::Result<()> {
        if self.retry_at(now).is_none_or(|at| at > now) {
            return Ok(());
        }
        let connected = UnixStream::connect(&self.path).and_then(|mut socket| {
            registry.register(&mut socket, self.token, Interest::READABLE)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => {
                use io::ErrorKind::{ConnectionRefused, NotFound};
                self.backoff.fail(now);
                if matches!(error.kind(), NotFound | ConnectionRefused)
                    || self.backoff.failures >= MAX_FAILURES
                {
                    return Err(error);
                }
                log::warn!("cannot reach the workers, trying again: {error}");
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.socket.is_some()
            && self.unsent.len() < MAX_UNSENT_BYTES
            && self.in_flight.len() < self.max_in_flight
    }

    /// It goes out with the next [`Pipe::flush`].
    pub(super) fn push(&mut self, number: u64, slot: usize, request: &[u8]) {
        self.in_flight.insert(number, slot);
        self.unsent.extend_from_slice(request);
    }

    /// The request that has waited for longest, if there is room for it now: to be pushed.
    pub(super) fn next_waiting(&mut self) -> Option<(u64, usize)> {
        if self.has_room() { self.waiting.pop_first() } else { None }
    }

    /// The next response, with its request's number and slot. Those to requests of a connection
    /// that broke are dropped: their clients got 503.
    pub(super) fn next_response(&mut self) -> Option<(u64, usize, Response)> {
        loop {
            let (number, response) = self.responses.try_recv().ok()?;
            if let Some(slot) = self.in_flight.remove(&number) {
                self.backoff = Backoff::default();
                return Some((number, slot, response));
            }
        }
    }

    /// Sends what the socket takes. Writability is asked for only while it takes no more: Linux
    /// reports it whenever the other side reads, which is once a request.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let mut sent = 0;
        while sent < self.unsent.len()
            && let Some(count) = nonblocking(|| socket.write(&self.unsent[sent..]))?
        {
            sent += count;
        }
        self.unsent.drain(..sent);
        // One burst must not keep its memory.
        self.unsent.shrink_to(USUAL_UNSENT_BYTES);
        let is_blocked = !self.unsent.is_empty();
        if std::mem::replace(&mut self.is_blocked, is_blocked) == is_blocked {
            return Ok(());
        }
        let writable = is_blocked.then_some(Interest::WRITABLE);
        let interest = writable.map_or(Interest::READABLE, |it| it | Interest::READABLE);
        registry.reregister(socket, self.token, interest)
    }

    /// Fails when the connection has broken. tiny_http writes only what ends it: a refusal of a
    /// request that it cannot parse.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        match nonblocking(|| socket.read(&mut [0]))? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("tiny_http has refused a request")),
        }
    }

    /// Gives the connection up, and returns numbers and slots of the requests in flight.
    pub(super) fn fail(&mut self, now: Instant) -> HashMap<u64, usize> {
        self.socket = None;
        self.backoff.fail(now);
        self.unsent = Vec::new();
        self.is_blocked = false;
        std::mem::take(&mut self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Sender, bounded};
    use mio::Poll;

    use super::*;
    use crate::runtime::clock::Clock;

    fn pipe(path: PathBuf) -> (Pipe, Sender<(u64, Response)>) {
        let (responses, received) = bounded(8);
        (Pipe::new(path, Token(0), received, 2), responses)
    }

    #[test]
    fn a_pipe_that_cannot_be_connected_is_given_up_after_many_tries_or_when_it_is_gone() {
        let poll = Poll::new().unwrap();
        let mut now = Clock::start().now();
        // A path that no socket can have fails, and not because it is gone.
        let (mut pipe, _responses) = pipe(PathBuf::from("x".repeat(200)));
        for failure in 1..MAX_FAILURES {
            assert!(pipe.connect(poll.registry(), now).is_ok(), "failure {failure}");
            let retry = pipe.retry_at(now).unwrap();
            assert!(retry > now && retry <= now + Backoff::MAX);
            now = retry;
        }
        assert!(pipe.connect(poll.registry(), now).is_err());
        let directory = tempfile::tempdir().unwrap();
        let (mut gone, _responses) = self::pipe(directory.path().join("none"));
        assert_eq!(gone.connect(poll.registry(), now).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Each response makes room, also one that comes too late for its client; waiting requests are
    /// served in order, without those that timed out.
    #[test]
    fn requests_in_flight_are_bounded_and_others_wait_in_order() {
        let (mut pipe, responses) = pipe(PathBuf::new());
        assert!(!pipe.has_room(), "not connected");
        pipe.socket = Some(UnixStream::pair().unwrap().0);
        for number in [1, 2] {
            pipe.waiting.insert(number, 10);
            assert_eq!(pipe.next_waiting(), Some((number, 10)));
            pipe.push(number, 10, b"request");
        }
        pipe.waiting.extend([(4, 40), (3, 30), (5, 50)]);
        pipe.waiting.remove(&4);
        assert_eq!(pipe.next_waiting(), None);
        responses.send((2, Response::json(200, Vec::new()))).unwrap();
        assert_eq!(pipe.next_waiting(), None, "not before it is taken");
        assert_eq!(pipe.next_response().map(|(number, slot, _)| (number, slot)), Some((2, 10)));
        assert_eq!(pipe.next_waiting(), Some((3, 30)));
        assert_eq!(pipe.next_waiting(), Some((5, 50)));
        assert!(pipe.has_room() && pipe.waiting.is_empty());
    }

    /// What comes for requests that were in flight then is not taken for the new connection's.
    #[test]
    fn a_pipe_that_breaks_returns_what_was_in_flight() {
        let (mut pipe, responses) = pipe(PathBuf::new());
        let now = Clock::start().now();
        pipe.socket = Some(UnixStream::pair().unwrap().0);
        pipe.push(1, 10, b"request");
        pipe.waiting.insert(2, 20);
        assert_eq!(pipe.fail(now), HashMap::from([(1, 10)]));
        assert_eq!(pipe.retry_at(now), Some(now + Backoff::MIN));
        assert_eq!((pipe.unsent.len(), pipe.waiting.len()), (0, 1));
        responses.send((1, Response::json(200, Vec::new()))).unwrap();
        assert!(pipe.next_response().is_none());
    }

    #[test]
    fn whatever_tiny_http_writes_breaks_the_pipe() {
        let (mut pipe, _responses) = pipe(PathBuf::new());
        let (socket, mut other) = UnixStream::pair().unwrap();
        pipe.socket = Some(socket);
        assert!(pipe.check().is_ok());
        other.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        assert!(pipe.check().is_err());
        let (socket, other) = UnixStream::pair().unwrap();
        pipe.socket = Some(socket);
        drop(other);
        assert_eq!(pipe.check().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

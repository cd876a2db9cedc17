//! The way to one tiny_http server: over a persistent Unix connection go batches of requests of many
//! clients, each batch the body of one HTTP request; over a channel responses come back, in any order.
//! Owns that connection, the channel's receiving end, and which requests are in flight or wait; knows a
//! client by its slot and the number of its request.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crossbeam_channel::Receiver;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::nonblocking;
use crate::wire::KIB;
use crate::wire::response::Response;

/// Requests that tiny_http has not taken yet, in bytes, beyond which a pipe takes no more of
/// them: they wait with their clients instead, where one can be closed to make room.
const MAX_UNSENT_BYTES: usize = 256 * KIB;

/// What a pipe keeps of that buffer when it is empty, in bytes: a turn's worth of heartbeats.
const USUAL_UNSENT_BYTES: usize = 64 * KIB;

/// The size at which a batch ends, in bytes; a larger request is a batch of its own. About 40
/// heartbeats: what comes in one turn is one worker's, and several share more than that.
const BATCH_BYTES: usize = 16 * KIB;

#[derive(Debug)]
pub(super) struct Pipe {
    path: PathBuf,
    token: Token,
    socket: UnixStream,
    pub(super) responses: Receiver<(u64, Response)>,
    /// Slots of the requests that tiny_http or a worker has, by number. Bounds tiny_http's queue.
    in_flight: HashMap<u64, usize>,
    max_in_flight: usize,
    /// Slots of the requests that wait for room, by number: first come, first served. Who stops
    /// waiting is removed: while the workers hang, those who come and go would fill it.
    pub(super) waiting: BTreeMap<u64, usize>,
    /// Requests that go out together.
    batch: Vec<u8>,
    /// Batches that the socket has not taken.
    unsent: Vec<u8>,
    /// Whether the socket takes no more, and reports when it does.
    is_blocked: bool,
}

impl Pipe {
    pub(super) fn connect(
        path: PathBuf,
        registry: &Registry,
        token: Token,
        responses: Receiver<(u64, Response)>,
        max_in_flight: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: connect(&path, registry, token)?,
            path,
            token,
            responses,
            in_flight: HashMap::new(),
            max_in_flight,
            waiting: BTreeMap::new(),
            batch: Vec::new(),
            unsent: Vec::new(),
            is_blocked: false,
        })
    }

    /// Makes a new connection, and returns numbers and slots of the requests that were in flight.
    /// Fails when the workers are gone, or the system has no descriptor or memory left.
    pub(super) fn reconnect(&mut self, registry: &Registry) -> io::Result<HashMap<u64, usize>> {
        self.socket = connect(&self.path, registry, self.token)?;
        self.batch = Vec::new();
        self.unsent = Vec::new();
        self.is_blocked = false;
        Ok(std::mem::take(&mut self.in_flight))
    }

    /// Memory for what tiny_http has not taken, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.batch.len() + self.unsent.len()
    }

    /// It goes out with the next [`Pipe::flush`].
    pub(super) fn push(&mut self, number: u64, slot: usize, request: &[u8]) {
        if self.batch.len() + request.len() > BATCH_BYTES {
            self.end_batch();
        }
        self.in_flight.insert(number, slot);
        self.batch.extend_from_slice(request);
    }

    fn end_batch(&mut self) {
        if !self.batch.is_empty() {
            let length = self.batch.len();
            // Writing to a Vec cannot fail.
            let _ = write!(self.unsent, "POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            self.unsent.append(&mut self.batch);
        }
    }

    fn has_room(&self) -> bool {
        self.held_bytes() < MAX_UNSENT_BYTES && self.in_flight.len() < self.max_in_flight
    }

    /// Whether a request that waits may be pushed: room can come without an event.
    pub(super) fn is_ready(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
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
                return Some((number, slot, response));
            }
        }
    }

    /// Sends what the socket takes. Writability is asked for only while it takes no more: Linux
    /// reports it whenever the other side reads, which may be several times a batch.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        self.end_batch();
        let mut sent = 0;
        while sent < self.unsent.len()
            && let Some(count) = nonblocking(|| self.socket.write(&self.unsent[sent..]))?
        {
            sent += count;
        }
        self.unsent.drain(..sent);
        // One burst must not keep its memory.
        self.batch.shrink_to(BATCH_BYTES);
        self.unsent.shrink_to(USUAL_UNSENT_BYTES);
        let is_blocked = !self.unsent.is_empty();
        if is_blocked != self.is_blocked {
            self.is_blocked = is_blocked;
            let both = Interest::READABLE | Interest::WRITABLE;
            let interest = if is_blocked { both } else { Interest::READABLE };
            registry.reregister(&mut self.socket, self.token, interest)?;
        }
        Ok(())
    }

    /// Fails when the connection has broken. tiny_http writes only what ends it: a refusal of a
    /// request that it cannot parse.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match nonblocking(|| self.socket.read(&mut [0]))? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("tiny_http has refused a request")),
        }
    }
}

fn connect(path: &Path, registry: &Registry, token: Token) -> io::Result<UnixStream> {
    let mut socket = UnixStream::connect(path)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Sender, bounded};
    use mio::Poll;

    use super::*;

    const MAX_IN_FLIGHT: usize = 2;

    /// A pipe, what responds to its requests, and the other end.
    fn pipe() -> (Pipe, Sender<(u64, Response)>, UnixStream, Poll) {
        let (responses, received) = bounded(8);
        let (socket, other) = UnixStream::pair().unwrap();
        let pipe = Pipe {
            path: PathBuf::from("gone"),
            token: Token(0),
            socket,
            responses: received,
            in_flight: HashMap::new(),
            max_in_flight: MAX_IN_FLIGHT,
            waiting: BTreeMap::new(),
            batch: Vec::new(),
            unsent: Vec::new(),
            is_blocked: false,
        };
        let (mut pipe, poll) = (pipe, Poll::new().unwrap());
        poll.registry().register(&mut pipe.socket, Token(0), Interest::READABLE).unwrap();
        (pipe, responses, other, poll)
    }

    /// The bodies of the HTTP requests in `bytes`.
    fn batches(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let head = std::str::from_utf8(&bytes[..head_bytes]).unwrap().trim_end();
            let length = head.strip_prefix("POST / HTTP/1.1\r\nContent-Length: ").unwrap();
            let (batch, rest) = bytes[head_bytes..].split_at(length.parse().unwrap());
            batches.push(batch);
            bytes = rest;
        }
        batches
    }

    /// Each response makes room, also one that comes too late for its client; waiting requests are
    /// served in order, without those that timed out.
    #[test]
    fn requests_in_flight_are_bounded_and_others_wait_in_order() {
        let (mut pipe, responses, ..) = pipe();
        for number in [1, 2] {
            pipe.waiting.insert(number, 10);
            assert!(pipe.is_ready());
            assert_eq!(pipe.next_waiting(), Some((number, 10)));
            pipe.push(number, 10, b"request");
        }
        pipe.waiting.extend([(4, 40), (3, 30), (5, 50)]);
        pipe.waiting.remove(&4);
        assert_eq!((pipe.next_waiting(), pipe.is_ready()), (None, false));
        responses.send((2, Response::json(200, Vec::new()))).unwrap();
        assert_eq!(pipe.next_waiting(), None, "not before it is taken");
        assert_eq!(pipe.next_response().map(|(number, slot, _)| (number, slot)), Some((2, 10)));
        assert_eq!(pipe.next_waiting(), Some((3, 30)));
        assert_eq!(pipe.next_waiting(), Some((5, 50)));
        assert!(pipe.has_room() && !pipe.is_ready());
    }

    /// What comes for requests that were in flight then is not taken for the new connection's, and
    /// what waits goes on waiting.
    #[test]
    fn a_pipe_that_breaks_returns_what_was_in_flight() {
        let (mut pipe, responses, _other, poll) = pipe();
        let directory = tempfile::tempdir().unwrap();
        let missing = pipe.reconnect(poll.registry()).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        pipe.path = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&pipe.path).unwrap();
        pipe.push(1, 10, b"request");
        pipe.waiting.insert(2, 20);
        assert_eq!(pipe.reconnect(poll.registry()).unwrap(), HashMap::from([(1, 10)]));
        assert_eq!((pipe.held_bytes(), pipe.waiting.len(), pipe.is_ready()), (0, 1, true));
        responses.send((1, Response::json(200, Vec::new()))).unwrap();
        assert!(pipe.next_response().is_none());
    }

    #[test]
    fn whatever_tiny_http_writes_breaks_the_pipe() {
        let (mut pipe, _responses, mut other, _poll) = pipe();
        assert!(pipe.check().is_ok());
        other.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        assert!(pipe.check().is_err());
        let (mut pipe, _responses, other, _poll) = self::pipe();
        drop(other);
        assert_eq!(pipe.check().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Requests arrive whole and in order, in batches of a bounded size, also when the socket takes
    /// nothing for a while; then no more are taken than `MAX_UNSENT_BYTES` and one.
    #[test]
    fn requests_go_out_in_batches_and_wait_for_a_full_socket() {
        const LARGE: usize = 70 * KIB;
        let (mut pipe, _responses, mut other, poll) = pipe();
        pipe.max_in_flight = usize::MAX;
        let mut sent = Vec::new();
        for number in 0.. {
            pipe.waiting.insert(number, 0);
            if pipe.next_waiting().is_none() {
                break;
            }
            let length = if number % 50 == 49 { LARGE } else { 400 };
            let request = vec![u8::try_from(number % 251).unwrap(); length];
            pipe.push(number, 0, &request);
            sent.extend(request);
            if number % 10 == 9 {
                pipe.flush(poll.registry()).unwrap();
            }
        }
        assert!(pipe.is_blocked && pipe.held_bytes() < MAX_UNSENT_BYTES + LARGE + KIB);
        let mut received = Vec::new();
        let mut part = vec![0; 64 * KIB];
        while pipe.held_bytes() > 0 || pipe.is_blocked {
            while let Ok(count @ 1..) = other.read(&mut part) {
                received.extend_from_slice(&part[..count]);
            }
            pipe.flush(poll.registry()).unwrap();
        }
        while let Ok(count @ 1..) = other.read(&mut part) {
            received.extend_from_slice(&part[..count]);
        }
        let batches = batches(&received);
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_BYTES || batch.len() == LARGE));
        assert_eq!(batches.concat(), sent);
        assert!(pipe.unsent.capacity() <= USUAL_UNSENT_BYTES && pipe.has_room());
    }
}

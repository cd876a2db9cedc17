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

/// What a pipe keeps of its buffer when it is empty, in bytes: a turn's worth of heartbeats.
const USUAL_UNSENT_BYTES: usize = 64 * KIB;

/// The size at which a batch ends, in bytes; a larger request is a batch of its own. About 40
/// heartbeats, so that several workers share a load.
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
    /// Fails when the workers cannot be reached any more.
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

    /// The request that has waited for longest, if there is room for it now: to be pushed.
    pub(super) fn next_waiting(&mut self) -> Option<(u64, usize)> {
        let has_room =
            self.held_bytes() < MAX_UNSENT_BYTES && self.in_flight.len() < self.max_in_flight;
        if has_room { self.waiting.pop_first() } else { None }
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
    /// reports it whenever the other side reads, which is once a request.
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

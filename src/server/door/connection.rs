//! One HTTP client: its socket, where its request stands, and what is buffered for it. Reads
//! and writes without blocking; decides nothing.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::check::Relay;
use super::cors::Cors;
use super::delay::Delayed;
use super::held::Held;
use super::parse::Scan;
use super::refusals::Asker;

/// Where a client's request stands. Whatever is large is boxed: most clients are idle.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing of a request has come.
    Idle,
    /// The head is coming.
    Head(Scan),
    /// The body is coming.
    Body(Box<Incoming>),
    /// Whole, and waiting for a place in a pipe.
    Waiting(Box<Queued>),
    /// A pipe has it.
    InFlight(Pending),
    /// Answered with a 401 that waits until the deadline.
    Delayed(Box<Delayed>),
    /// The answer is on its way to the client. With a number, more of the answer is to come
    /// from the worker.
    Answering(Then, Option<u64>),
    /// Answered and closed on our side; up to so many bytes more are read and dropped, so that
    /// no reset overtakes the answer (RFC 9112 section 9.6).
    Lingering(usize),
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    Keep,
    /// The end: everything that the client sent was read.
    Close,
    /// The end, but the client may still be sending.
    Linger,
}

/// How the answer is to be given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) keep_alive: bool,
    /// HEAD was asked: the answer's head only.
    pub(super) head_only: bool,
    pub(super) cors: Cors,
}

impl Manner {
    /// For who is told why the connection ends.
    pub(super) const CLOSING: Self =
        Self { keep_alive: false, head_only: false, cors: Cors::Silent };

    /// The same, for an answer that ends the connection.
    pub(super) fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    /// What follows an answer to a request that was read whole.
    pub(super) fn then(self) -> Then {
        if self.keep_alive { Then::Keep } else { Then::Close }
    }
}

/// A request whose body is not whole.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) relay: Option<Relay>,
    pub(super) body_bytes: usize,
    pub(super) manner: Manner,
}

/// A whole request that no pipe has taken.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) request: Vec<u8>,
    pub(super) pending: Pending,
}

/// A whole request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    /// The stamp's number.
    pub(super) number: u64,
    pub(super) manner: Manner,
}

/// What one read brought.
pub(super) enum Received {
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The client will send no more, or is gone.
    End,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: IpAddr,
    /// Whose request is at hand: `peer`, or whom a trusted proxy names.
    pub(super) client: IpAddr,
    /// Who asks, when an agent's request is at a worker.
    pub(super) asker: Option<Asker>,
    /// The entry that it counts under; none for trusted proxies.
    pub(super) address: Option<usize>,
    pub(super) phase: Phase,
    /// When the phase began, or later bytes went either way: who has made no progress for longest
    /// goes first when memory runs out.
    pub(super) last_progress: Instant,
    pub(super) deadline: Instant,
    /// Not zero while this connection may be closed to make room: its place in that order.
    pub(super) spare: u64,
    /// Whether it stands in the list of those to be served in the next turn.
    pub(super) listed: bool,
    /// Readiness is edge-triggered, so it is remembered: there may be bytes to read...
    readable: bool,
    /// ...the client has closed its side, which a short read does not show...
    half_closed: bool,
    /// ...the socket has taken all that it was given.
    writable: bool,
    /// Read, and not yet part of a request that is on its way.
    pub(super) input: Held,
    /// What the socket has not taken, in the pieces in which it came: each is given back when
    /// it is out, and none is ever moved to a larger place.
    output: VecDeque<Held>,
    /// Bytes of the first piece that are out.
    written: usize,
    /// Memory for all pieces, in bytes.
    unsent_bytes: usize,
    /// Bytes that the socket has taken since somebody asked.
    taken: usize,
    /// Bytes that the budget has been told of.
    pub(super) accounted: usize,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        peer: IpAddr,
        address: Option<usize>,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            socket,
            peer,
            client: peer,
            asker: None,
            address,
            phase: Phase::Idle,
            last_progress: now,
            deadline,
            spare: 0,
            listed: false,
            readable: false,
            half_closed: false,
            writable: true,
            input: Held::default(),
            output: VecDeque::new(),
            written: 0,
            unsent_bytes: 0,
            taken: 0,
            accounted: 0,
        }
    }

    pub(super) fn note_readable(&mut self, half_closed: bool) {
        self.readable = true;
        self.half_closed |= half_closed;
    }

    pub(super) fn note_writable(&mut self) {
        self.writable = true;
    }

    /// Whether a read may bring something.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether bytes of the client are looked at in this phase.
    pub(super) fn takes_input(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head(_) | Phase::Body(_) | Phase::Lingering(_))
    }

    /// Whether its answer waits for its time.
    pub(super) fn is_delayed(&self) -> bool {
        matches!(self.phase, Phase::Delayed(_))
    }

    /// How the request at hand is to be answered. One whose head is not whole has not said.
    pub(super) fn manner(&self) -> Manner {
        match &self.phase {
            Phase::Body(incoming) => incoming.manner,
            Phase::Waiting(queued) => queued.pending.manner,
            Phase::InFlight(pending) => pending.manner,
            _ => Manner::CLOSING,
        }
    }

    /// The whole request with this number, if it waits for a pipe.
    pub(super) fn waits_with(&self, number: u64) -> Option<&Queued> {
        match &self.phase {
            Phase::Waiting(queued) if queued.pending.number == number => Some(queued),
            _ => None,
        }
    }

    /// Reads once. A read that does not fill `scratch` has emptied the socket, so that a
    /// second read only to be told so is saved.
    pub(super) fn receive(&mut self, scratch: &mut [u8], now: Instant) -> Received {
        if !self.readable {
            return Received::Nothing;
        }
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Received::End,
                Ok(count) => {
                    self.readable = count == scratch.len() || self.half_closed;
                    self.last_progress = now;
                    return Received::Bytes(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Received::End,
            }
        }
    }

    /// Sends `bytes` behind what is still to be sent; keeps what the socket does not take.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        let mut rest = bytes;
        if self.output.is_empty() {
            let taken = Self::write(&self.socket, &mut self.writable, rest)?;
            self.note_taken(taken, now);
            rest = &rest[taken..];
        }
        if !rest.is_empty() {
            let piece = Held::from(rest);
            self.unsent_bytes += piece.cost_bytes();
            self.output.push_back(piece);
        }
        Ok(())
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn flush(&mut self, now: Instant) -> io::Result<()> {
        while let Some(piece) = self.output.front() {
            let taken = Self::write(&self.socket, &mut self.writable, &piece[self.written..])?;
            let (len, cost_bytes) = (piece.len(), piece.cost_bytes());
            self.note_taken(taken, now);
            self.written += taken;
            if self.written < len {
                return Ok(());
            }
            self.unsent_bytes -= cost_bytes;
            self.written = 0;
            self.output.pop_front();
        }
        self.output = VecDeque::new();
        Ok(())
    }

    fn note_taken(&mut self, bytes: usize, now: Instant) {
        self.taken += bytes;
        if bytes > 0 {
            self.last_progress = now;
        }
    }

    /// Bytes that the socket has taken since this was last asked.
    pub(super) fn take_progress(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }

    /// Memory for what the socket has not taken, in bytes.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// To the last byte or until the socket says that it would block: only then will it tell
    /// when it can take more.
    fn write(mut socket: &TcpStream, writable: &mut bool, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while *writable && taken < bytes.len() {
            match socket.write(&bytes[taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Whether the socket has taken all that was sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Memory for what is buffered, in bytes.
    pub(super) fn held(&self) -> usize {
        let request = match &self.phase {
            Phase::Body(incoming) => incoming.relay.as_ref().map_or(0, |r| r.head.capacity()),
            Phase::Waiting(queued) => queued.request.capacity(),
            Phase::Delayed(delayed) => delayed.answer.capacity(),
            _ => 0,
        };
        self.input.cost_bytes() + self.unsent_bytes + request
    }
}

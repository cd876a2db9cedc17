//! What bounds the clients: caps on connections, deadlines, the memory budget, and the stop.
//! Another part of [`Door`].

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::Ordering;

use super::addresses::{Address, Full};
use super::connection::Connection;
use super::listener::MAX_ACCEPTS_PER_TURN;
use super::pipe::Pipe;
use super::serve::REQUESTS_SHARE;
use super::{Door, STOP_GRACE};
use crate::wire::response::Response;

/// When the budget is exceeded, memory is freed down to this share below it (one in so many bytes),
/// because choosing whom to evict takes a look at every client.
const ROOM_SHARE: usize = 32;

// Large responses alone never exceed what this frees down to.
const _: () = assert!(ROOM_SHARE > REQUESTS_SHARE);

impl Door {
    pub(super) fn accept(&mut self) {
        for index in 0..self.listeners.len() {
            for _ in 0..MAX_ACCEPTS_PER_TURN {
                let (listener, acceptor) = &mut self.listeners[index];
                match acceptor.accept(self.context.now, || listener.accept()) {
                    Ok((socket, peer)) => self.admit(socket, peer.ip().to_canonical()),
                    Err(error) => {
                        // The caps leave descriptors free, so the system as a whole has none, and
                        // to close a connection of ours would not help.
                        if error.kind() != ErrorKind::WouldBlock {
                            self.counters.accept_errors.add_one();
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Takes a client in, in place of an idle one when a cap is reached; else rejects it.
    pub(super) fn admit(&mut self, socket: mio::net::TcpStream, peer: IpAddr) {
        let is_proxy = self.context.policy.gate.trusts(peer);
        let address = (!is_proxy).then(|| Address::from(peer));
        let permit = loop {
            let (of, detail) = match self.connections.acquire(address) {
                Ok(permit) => break permit,
                Err(Full::Total) => (None, "too many connections"),
                Err(Full::Address) => (address, "too many connections from this address"),
            };
            self.counters.connections_refused.add_one();
            match self.clients.longest_idle(of) {
                Some(slot) => self.close(slot),
                None => return self.reject(socket.into(), peer, detail),
            }
        };
        let now = self.context.now;
        let connection = Connection::new(peer, now, now + self.context.limits.head_timeout);
        let inserted = self.clients.insert(self.poll.registry(), socket, connection, permit);
        if let Err(error) = inserted {
            self.counters.accept_errors.add_one();
            log::debug!("cannot watch a connection: {error}");
        }
    }

    /// Tells a client that is not in the table why it is closed. Best effort: a socket to which
    /// nothing was sent takes a few hundred bytes at once.
    pub(super) fn reject(&mut self, mut socket: TcpStream, peer: IpAddr, detail: &str) {
        self.counters.overloads.add_one();
        let now = self.context.now;
        let mut connection = Connection::new(peer, now, now);
        connection.respond(Response::problem(503, detail), &self.context);
        let _ = socket.set_nonblocking(true);
        let _ = socket.write(connection.unsent());
        let _ = socket.shutdown(Shutdown::Write);
        // Closing with bytes unread would reset the connection, and the response with it.
        let _ = socket.read(&mut self.scratch);
    }

    pub(super) fn keep_deadlines(&mut self) {
        for slot in self.clients.expired(self.context.now) {
            // It may take something although it is not reported as writable.
            self.settle(slot);
            self.advise(slot, Connection::expire);
        }
    }

    /// Evicts clients until the budget is kept again: first those that have made no progress for
    /// longest, in taking a response as in sending a request.
    pub(super) fn make_room_in_memory(&mut self) {
        let budget = self.context.limits.max_buffered_bytes;
        if self.held_bytes() <= budget {
            return;
        }
        for slot in self.clients.slots_where(|connection| !connection.unsent().is_empty()) {
            self.settle(slot);
        }
        for slot in self.clients.holders() {
            if self.held_bytes() <= budget - budget / ROOM_SHARE {
                break;
            }
            self.counters.buffer_evictions.add_one();
            self.advise(slot, Connection::evict);
        }
    }

    /// Memory for all requests and responses, in bytes.
    fn held_bytes(&self) -> usize {
        let in_pipes: usize = self.pipes.iter().map(Pipe::held_bytes).sum();
        self.clients.buffered_bytes + self.body_bytes.load(Ordering::Relaxed) + in_pipes
    }

    /// Stops taking work once; true when all that was in flight is answered, or has had its time.
    pub(super) fn wind_down(&mut self) -> bool {
        let ends_at = *self.ends_at.get_or_insert(self.context.now + STOP_GRACE);
        if !self.context.is_stopping {
            // Set before any response is sent, so that no connection is kept.
            self.context.is_stopping = true;
            self.listeners.clear();
            for slot in self.clients.slots_where(|_| true) {
                self.advise(slot, Connection::stop);
            }
            self.log_refusals(true);
        }
        self.context.now >= ends_at
            || self.clients.slots_where(|connection| !connection.is_idle()).is_empty()
    }

    /// Logs what is due of refusals; at the end `all` that is left.
    pub(super) fn log_refusals(&mut self, all: bool) {
        for line in self.refusals.lines(self.context.now, all, &self.context.policy.gate) {
            log::info!("{line}");
        }
    }
}

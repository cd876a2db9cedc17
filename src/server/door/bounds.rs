//! What bounds the clients: caps on connections, deadlines, the memory budget, and the stop.
//! Another part of [`Door`].

use std::net::SocketAddr;

use mio::net::TcpStream;

use super::Door;
use super::listener::{Accepted, MAX_ACCEPTS_PER_TURN};
use super::serve::REQUESTS_SHARE;
use crate::wire::response::Response;

/// When the budget is exceeded, memory is freed down to this share below it (one in so many bytes),
/// because choosing whom to evict takes a look at every client.
const ROOM_SHARE: usize = 32;

// Large responses alone never exceed what this frees down to.
const _: () = assert!(ROOM_SHARE > REQUESTS_SHARE);

impl Door {
    pub(super) fn accept(&mut self) {
        let now = self.context.now;
        for index in 0..self.listeners.len() {
            for _ in 0..MAX_ACCEPTS_PER_TURN {
                let (listener, acceptor) = &mut self.listeners[index];
                if acceptor.due(now).is_none_or(|due| due > now) {
                    break;
                }
                match acceptor.accept(now, || listener.accept()) {
                    Accepted::Connection((socket, peer)) => self.admit(socket, peer),
                    // The caps leave descriptors free, so the system as a whole has none, and to
                    // close a connection of ours would not help.
                    Accepted::Exhausted => {
                        self.counters.accept_errors.add_one();
                        break;
                    }
                    Accepted::Nothing => break,
                }
            }
        }
    }

    /// Takes a client in, in place of an idle one when a cap is reached; else rejects it.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        let limits = &self.context.limits;
        let (max, max_here) = (limits.max_connections, limits.max_connections_per_address);
        let is_counted = !self.context.policy.is_proxy(peer);
        if is_counted && self.clients.count_of(peer) >= max_here {
            match self.clients.longest_idle(Some(peer)) {
                Some(slot) => self.make_place(slot),
                None => return self.refuse(socket, "too many connections from this address"),
            }
        }
        if self.clients.len() >= max {
            match self.clients.longest_idle(None) {
                Some(slot) => self.make_place(slot),
                None => return self.refuse(socket, "too many connections"),
            }
        }
        // Responses go out whole, in one write: waiting for more to send would only delay them.
        let _ = socket.set_nodelay(true);
        if let Err(error) = self.register(socket, peer) {
            self.counters.accept_errors.add_one();
            log::debug!("cannot watch a connection: {error}");
        }
    }

    fn refuse(&mut self, socket: TcpStream, detail: &str) {
        self.counters.connections_refused.add_one();
        self.reject(socket, detail);
    }

    fn make_place(&mut self, slot: usize) {
        self.counters.connections_refused.add_one();
        self.close(slot);
    }

    pub(super) fn keep_deadlines(&mut self) {
        for slot in self.clients.expired(self.context.now) {
            self.retry_writing(slot);
            let Some(client) = self.clients.get(slot) else { continue };
            let event = client.connection.expire(&self.context);
            self.act(slot, event);
        }
    }

    /// Tries to write although the socket has not become writable: it reports that only when a good
    /// part of its buffer is free.
    fn retry_writing(&mut self, slot: usize) {
        if let Some(client) = self.clients.get(slot) {
            client.set_writable();
        }
        self.settle(slot);
    }

    /// Evicts clients until the budget is kept again: first those that have made no progress for
    /// longest, in taking a response as in sending a request.
    pub(super) fn make_room_in_memory(&mut self) {
        let budget = self.context.limits.max_buffered_bytes;
        let max_held_bytes = self.clients.max_held_bytes() + self.bytes_in_pipes();
        if max_held_bytes <= budget || self.held_bytes() <= budget {
            return;
        }
        for slot in self.clients.slots_where(|connection| !connection.unsent().is_empty()) {
            self.retry_writing(slot);
        }
        for slot in self.clients.holders() {
            if self.held_bytes() <= budget - budget / ROOM_SHARE {
                break;
            }
            self.counters.buffer_evictions.add_one();
            let Some(client) = self.clients.get(slot) else { continue };
            let event = client.connection.evict();
            self.act(slot, event);
        }
    }

    fn held_bytes(&mut self) -> usize {
        self.clients.held_bytes() + self.bytes_in_pipes()
    }

    fn bytes_in_pipes(&self) -> usize {
        self.pipes.iter().map(|pipe| pipe.held_bytes()).sum()
    }

    /// Stops taking work once; true when all that was in flight is answered, or has had its time.
    pub(super) fn wind_down(&mut self) -> bool {
        let ends_at = *self.ends_at.get_or_insert(self.context.now + super::STOP_GRACE);
        if !self.context.is_stopping {
            // Set before any response is sent, so that no connection is kept.
            self.context.is_stopping = true;
            self.listeners.clear();
            for slot in self.clients.slots_where(|_| true) {
                let Some(client) = self.clients.get(slot) else { continue };
                let event = client.connection.stop(&self.context);
                self.act(slot, event);
            }
            self.log_refusals(true);
        }
        self.context.now >= ends_at
            || self.clients.slots_where(|connection| connection.is_unanswered()).is_empty()
    }

    /// Logs what is due of refusals; at the end `all` that is left.
    pub(super) fn log_refusals(&mut self, all: bool) {
        for line in self.refusals.lines(self.context.now, all, self.context.policy.gate()) {
            log::info!("{line}");
        }
    }

    /// What was in flight gets 503; the pipe is connected again in time.
    pub(super) fn fail_pipe(&mut self, index: usize, error: &std::io::Error) {
        log::warn!("a pipe to the workers broke and is connected again: {error}");
        self.counters.pipe_breaks.add_one();
        for (number, slot) in self.pipes[index].fail(self.context.now) {
            let Some(client) = self.clients.get(slot) else { continue };
            if client.connection.relayed() == Some(number) {
                let options = client.connection.options();
                let lost = Response::problem(503, "the request was lost on its way; try again");
                self.respond(slot, lost, options);
                self.settle(slot);
            }
        }
    }
}

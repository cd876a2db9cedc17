//! Taking new clients in: under the caps, in place of one that rests, or not at all.

use std::net::SocketAddr;

use mio::Interest;
use mio::net::TcpStream;

use super::Door;
use super::connection::Connection;
use super::listen::{Accepted, MAX_ACCEPTS_PER_TURN};

impl Door {
    pub(super) fn accept(&mut self) {
        for index in 0..self.listeners.len() {
            for _ in 0..MAX_ACCEPTS_PER_TURN {
                let listener = &mut self.listeners[index];
                if listener.due(self.now).is_none_or(|due| due > self.now) {
                    break;
                }
                match listener.accept(self.now) {
                    Accepted::Connection((socket, peer)) => self.admit(socket, peer),
                    // Nobody who is connected pays for it: the caps leave descriptors free, so
                    // it is the system that has none, and it takes ours for others.
                    Accepted::Exhausted => {
                        self.counters.accept_errors.add_one();
                        break;
                    }
                    Accepted::Nobody => break,
                }
            }
        }
    }

    /// Takes a client in, in place of one that rests when a cap is reached; else refuses it.
    fn admit(&mut self, mut socket: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        let exempt = self.rules.is_proxy(peer);
        if !exempt && self.clients.count_of(peer) >= self.limits.max_connections_per_address {
            match self.clients.longest_spare_of(peer) {
                Some(slot) => self.make_place(slot),
                None => return self.turn_away(socket, "too many connections from this address"),
            }
        }
        if self.clients.len() >= self.limits.max_connections && !self.close_longest_spare() {
            return self.turn_away(socket, "too many connections");
        }
        // Answers go out whole, in one write: waiting for more to send would only delay them.
        let _ = socket.set_nodelay(true);
        let token = self.client_token(self.clients.next_slot());
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, token, interest) {
            self.counters.accept_errors.add_one();
            log::debug!("cannot watch a connection: {error}");
            return;
        }
        let address = (!exempt).then(|| self.clients.count(peer));
        let deadline = self.now + self.limits.head_timeout;
        self.clients.insert(Connection::new(socket, peer, address, self.now, deadline));
    }

    fn close_longest_spare(&mut self) -> bool {
        let slot = self.clients.longest_spare();
        if let Some(slot) = slot {
            self.make_place(slot);
        }
        slot.is_some()
    }

    fn make_place(&mut self, slot: usize) {
        self.counters.connections_refused.add_one();
        self.close(slot);
    }
}

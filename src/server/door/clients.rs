//! The table of HTTP clients, each a socket and its connection: which is idle for longest, when the
//! next deadline is, how much memory they hold. Reads and writes without blocking; decides nothing.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::addresses::{Address, Permit};
use super::connection::{Connection, Context, Event, Then};
use super::nonblocking;
use super::policy::Relay;

/// Shortest time between two looks at all deadlines.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A look at the deadlines that comes later than this was delayed by us (the process was
/// suspended, say), and many turns' worth of what clients sent meanwhile may wait unread.
const STALL: Duration = Duration::from_secs(1);

/// Time for us to read that.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// A client's socket and connection. Readiness is edge-triggered, so `is_readable` remembers it.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) connection: Connection,
    permit: Permit,
    pub(super) is_readable: bool,
    /// The client has closed its side, which a short read does not show.
    pub(super) is_half_closed: bool,
    is_listed: bool,
    /// Its part of [`Clients::buffered_bytes`].
    counted_bytes: usize,
}

impl Client {
    /// Looks for a request in what has come; without one reads once and looks again. A read that does
    /// not fill `scratch` has emptied the socket: no second read is needed to see `WouldBlock`.
    pub(super) fn receive(&mut self, scratch: &mut [u8], context: &Context) -> io::Result<Event> {
        let event = self.connection.advance(context);
        if !matches!(event, Event::None) || !self.is_readable || !self.connection.takes_input() {
            return Ok(event);
        }
        let received = nonblocking(|| self.socket.read(scratch))?;
        self.is_readable = received == Some(scratch.len()) || self.is_half_closed;
        let Some(count) = received else { return Ok(event) };
        self.connection.receive(&scratch[..count], context.now);
        Ok(self.connection.advance(context))
    }

    /// Writes everything, or until the socket would block: only then does it report later that it
    /// is writable, when a good part of its buffer is free. Returns what follows.
    pub(super) fn flush(&mut self, context: &Context) -> io::Result<Then> {
        while !self.connection.unsent().is_empty()
            && let Some(count) = nonblocking(|| self.socket.write(self.connection.unsent()))?
        {
            self.connection.sent(count, context.now);
        }
        let then = self.connection.finish(self.is_readable, context);
        if then == Then::Linger {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(then)
    }
}

pub(super) struct Clients {
    table: Slab<Client>,
    /// To be served in the next turn although nothing new comes from their sockets.
    pub(super) listed: VecDeque<usize>,
    /// No deadline is before this one.
    earliest: Option<Instant>,
    swept: Instant,
    /// Memory for requests and responses of all clients, large bodies aside.
    pub(super) buffered_bytes: usize,
}

impl Clients {
    /// Reserves room for `max` clients at once: were these to grow amid a flood, they would lie above
    /// its buffers and keep their memory from going back to the system.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        Self {
            table: Slab::with_capacity(max),
            listed: VecDeque::with_capacity(max),
            earliest: None,
            swept: now,
            buffered_bytes: 0,
        }
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Client> {
        self.table.get_mut(slot)
    }

    /// The request with this number, if the client in this slot still waits for its response: the
    /// slot may be another's by now.
    pub(super) fn pending(&mut self, number: u64, slot: usize) -> Option<&mut Relay> {
        let (pending, relay) = self.get(slot)?.connection.pending()?;
        (pending == number).then_some(relay)
    }

    pub(super) fn slots_where(&self, condition: impl Fn(&Connection) -> bool) -> Vec<usize> {
        let matching = self.table.iter().filter(|(_, client)| condition(&client.connection));
        matching.map(|(slot, _)| slot).collect()
    }

    pub(super) fn insert(
        &mut self,
        registry: &Registry,
        mut socket: TcpStream,
        connection: Connection,
        permit: Permit,
    ) -> io::Result<()> {
        let entry = self.table.vacant_entry();
        let slot = entry.key();
        registry.register(&mut socket, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Client {
            socket,
            connection,
            permit,
            is_readable: false,
            is_half_closed: false,
            is_listed: false,
            counted_bytes: 0,
        });
        self.update(slot);
        Ok(())
    }

    /// Dropping the socket closes it, which also ends its registration.
    pub(super) fn remove(&mut self, slot: usize) -> Option<TcpStream> {
        let client = self.table.try_remove(slot)?;
        self.buffered_bytes -= client.counted_bytes;
        Some(client.socket)
    }

    /// Counts a client that has changed anew, and lists it if it can go on without a new event.
    pub(super) fn update(&mut self, slot: usize) {
        let Some(client) = self.table.get_mut(slot) else { return };
        let connection = &client.connection;
        let counted_bytes = std::mem::replace(&mut client.counted_bytes, connection.held_bytes());
        self.buffered_bytes = self.buffered_bytes - counted_bytes + client.counted_bytes;
        let deadline = connection.deadline;
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        let goes_on = connection.has_input() || client.is_readable && connection.takes_input();
        if goes_on && !std::mem::replace(&mut client.is_listed, true) {
            self.listed.push_back(slot);
        }
    }

    pub(super) fn next_listed(&mut self) -> Option<usize> {
        let slot = self.listed.pop_front()?;
        if let Some(client) = self.table.get_mut(slot) {
            client.is_listed = false;
        }
        Some(slot)
    }

    /// The client that has been idle for longest, of this address if there is one. Scans the table,
    /// which only connections accepted at a cap cost.
    pub(super) fn longest_idle(&self, address: Option<Address>) -> Option<usize> {
        let candidates = self.table.iter().filter(|(_, client)| {
            client.connection.is_idle() && (address.is_none() || client.permit.address == address)
        });
        let longest = candidates.min_by_key(|(_, client)| client.connection.last_progress);
        longest.map(|(slot, _)| slot)
    }

    /// When to look at all deadlines next.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.earliest.map(|earliest| earliest.max(self.swept + SWEEP_EVERY))
    }

    /// Those whose deadline has passed, if it is time to look. After a stall of the server none
    /// has: all deadlines are extended.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<usize> {
        let Some(due) = self.next_sweep().filter(|due| *due <= now) else { return Vec::new() };
        self.swept = now;
        if now - due > STALL {
            for (_, client) in &mut self.table {
                client.connection.deadline += now - due + STALL_GRACE;
            }
        }
        let deadlines = self.table.iter().map(|(_, client)| client.connection.deadline);
        self.earliest = deadlines.filter(|deadline| *deadline > now).min();
        self.slots_where(|connection| connection.deadline <= now)
    }

    /// The clients that hold memory, for requests or responses: first those that have made no
    /// progress for longest.
    pub(super) fn holders(&self) -> Vec<usize> {
        let mut holders = self.slots_where(|connection| connection.held_bytes() > 0);
        holders.sort_by_key(|slot| self.table[*slot].connection.last_progress);
        holders
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use mio::Poll;

    use super::super::addresses::Permits;
    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn after_a_stall_of_ours_everyone_has_time_still() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let poll = Poll::new().unwrap();
        let permits = Permits::new(9, 9, Default::default(), |it| &it.connections);
        let start = Clock::start().now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let table = || {
            let mut clients = Clients::new(2, start);
            for deadline in [10, 40] {
                let socket = TcpStream::connect(address).unwrap();
                let socket = mio::net::TcpStream::from_std(socket);
                let connection = Connection::new(address.ip(), start, at(deadline));
                let permit = permits.acquire(None).unwrap();
                clients.insert(poll.registry(), socket, connection, permit).unwrap();
            }
            clients
        };
        let mut clients = table();
        assert!(clients.expired(at(9)).is_empty());
        assert_eq!(clients.expired(at(11)), [0], "late by no more than a stall is");
        let mut clients = table();
        assert!(clients.expired(at(50)).is_empty(), "40 s late");
        assert_eq!(clients.next_sweep(), Some(at(51)), "the stalled time and a grace");
        assert_eq!(clients.expired(at(51)), [0]);
        clients.remove(0);
        assert!(clients.expired(at(80)).is_empty());
        assert_eq!(clients.expired(at(81)), [1]);
    }
}

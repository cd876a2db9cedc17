//! The table of HTTP clients: each one's socket with its connection, and what is asked of all of
//! them: which is idle for longest, when the next deadline is, how much memory they hold. Reads and
//! writes without blocking; decides nothing.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use slab::Slab;

use super::addresses::{Address, Occupancy};
use super::connection::{Connection, Context, Flushed, SMALL_BODY_BYTES};
use crate::runtime::counters::Counters;
use crate::wire::response::Body;

/// Shortest time between two looks at all deadlines: a deadline is kept this exactly.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A look at the deadlines that comes later than this was delayed by us (the process was
/// suspended, say), and many turns' worth of what clients sent meanwhile may wait unread.
const STALL: Duration = Duration::from_secs(1);

/// What everyone has at least after a stall: time for us to read what has come.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// A client's socket and connection. Readiness is edge-triggered, so it is remembered.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) connection: Connection,
    /// Under which it counts; none for trusted proxies.
    address: Option<Address>,
    is_readable: bool,
    /// The client has closed its side, which a short read does not show.
    is_half_closed: bool,
    is_writable: bool,
    /// Whether it is among those to be served in the next turn.
    is_listed: bool,
    /// What [`Clients`] has counted of it.
    counted_bytes: usize,
    counted_delayed: bool,
}

/// What one read brought.
pub(super) enum Received {
    Bytes,
    Nothing,
    /// The client will send no more, or is gone.
    End,
}

impl Client {
    pub(super) fn new(socket: TcpStream, address: Option<Address>, connection: Connection) -> Self {
        Self {
            socket,
            connection,
            address,
            is_readable: false,
            is_half_closed: false,
            is_writable: true,
            is_listed: false,
            counted_bytes: 0,
            counted_delayed: false,
        }
    }

    pub(super) fn set_readable(&mut self, is_half_closed: bool) {
        self.is_readable = true;
        self.is_half_closed |= is_half_closed;
    }

    pub(super) fn set_writable(&mut self) {
        self.is_writable = true;
    }

    /// Reads once. A read that does not fill `scratch` has emptied the socket: no second read is
    /// needed to see `WouldBlock`.
    pub(super) fn read(&mut self, scratch: &mut [u8], now: Instant) -> Received {
        while self.is_readable {
            match self.socket.read(scratch) {
                Ok(0) => return Received::End,
                Ok(count) => {
                    self.is_readable = count == scratch.len() || self.is_half_closed;
                    self.connection.receive(&scratch[..count], now);
                    return Received::Bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Received::End,
            }
        }
        Received::Nothing
    }

    /// Writes everything, or until the socket would block: only then does it report later that it
    /// is writable.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn flush(&mut self, context: &Context) -> io::Result<Flushed> {
        while self.is_writable && !self.connection.unsent().is_empty() {
            match self.socket.write(self.connection.unsent()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.connection.sent(count, context.now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let flushed = self.connection.finish(self.is_readable, context);
        if flushed == Flushed::ShutDown {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(flushed)
    }
}

/// See the module.
pub(super) struct Clients {
    table: Slab<Client>,
    by_address: Occupancy,
    /// To be served in the next turn although nothing new comes from their sockets.
    listed: VecDeque<usize>,
    /// No deadline is before this one.
    earliest: Option<Instant>,
    swept: Instant,
    buffered_bytes: usize,
    /// Large bodies of which clients have not taken all; each counts once, however many share it.
    bodies: Vec<Weak<Vec<u8>>>,
    /// What these take, in bytes, or more: those of them that are gone since the last sum count.
    max_body_bytes: usize,
    delayed: usize,
    counters: Arc<Counters>,
}

impl Clients {
    /// Room for `max` connections, reserved at once and touched when needed: were these to grow
    /// amid a flood, they would lie above its buffers and keep their memory from going back to
    /// the system.
    pub(super) fn new(max: usize, counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            table: Slab::with_capacity(max),
            by_address: Occupancy::default(),
            listed: VecDeque::with_capacity(max),
            earliest: None,
            swept: now,
            buffered_bytes: 0,
            bodies: Vec::new(),
            max_body_bytes: 0,
            delayed: 0,
            counters,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Client> {
        self.table.get_mut(slot)
    }

    /// The slots of clients for which `condition` holds.
    pub(super) fn slots_where(&self, condition: impl Fn(&Connection) -> bool) -> Vec<usize> {
        let matching = self.table.iter().filter(|(_, client)| condition(&client.connection));
        matching.map(|(slot, _)| slot).collect()
    }

    /// Connections that count under the address of `peer`.
    pub(super) fn count_of(&self, peer: IpAddr) -> usize {
        self.by_address.of(peer.into())
    }

    /// The slot that the next [`Clients::insert`] fills.
    pub(super) fn next_slot(&self) -> usize {
        self.table.vacant_key()
    }

    /// Takes in a client whose connection is idle.
    pub(super) fn insert(&mut self, client: Client) {
        if let Some(address) = client.address {
            self.by_address.add(address);
        }
        let slot = self.table.insert(client);
        self.counters.connections.add_one();
        self.update(slot);
    }

    /// Takes a client out; dropping it closes its socket, which also ends its registration.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Client> {
        let client = self.table.try_remove(slot)?;
        self.buffered_bytes -= client.counted_bytes;
        self.delayed -= usize::from(client.counted_delayed);
        self.counters.connections.remove_one();
        if let Some(address) = client.address {
            self.by_address.remove(address);
        }
        Some(client)
    }

    /// Brings all that is counted of clients up to date with one that has changed, and lists it if
    /// it can go on without a new event.
    pub(super) fn update(&mut self, slot: usize) {
        let Some(client) = self.table.get_mut(slot) else { return };
        let connection = &client.connection;
        let (bytes, is_delayed) = (connection.held_bytes(), connection.is_delayed());
        self.buffered_bytes = self.buffered_bytes - client.counted_bytes + bytes;
        self.delayed = self.delayed - usize::from(client.counted_delayed) + usize::from(is_delayed);
        let deadline = connection.deadline;
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        let goes_on = connection.has_input() || client.is_readable && connection.takes_input();
        (client.counted_bytes, client.counted_delayed) = (bytes, is_delayed);
        if goes_on && !std::mem::replace(&mut client.is_listed, true) {
            self.listed.push_back(slot);
        }
    }

    /// How many are to be served in this turn.
    pub(super) fn listed(&self) -> usize {
        self.listed.len()
    }

    /// The next to be served.
    pub(super) fn next_listed(&mut self) -> Option<usize> {
        let slot = self.listed.pop_front()?;
        if let Some(client) = self.table.get_mut(slot) {
            client.is_listed = false;
        }
        Some(slot)
    }

    /// The client that has been idle for longest, of the address of `peer` if there is one. Scans
    /// the table, which only connections accepted at a cap cost.
    pub(super) fn longest_idle(&self, peer: Option<IpAddr>) -> Option<usize> {
        let address = peer.map(Address::from);
        let candidates = self.table.iter().filter(|(_, client)| {
            client.connection.is_idle() && (address.is_none() || client.address == address)
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
        let late = now - due;
        if late > STALL {
            self.extend_deadlines(late + STALL_GRACE);
            return Vec::new();
        }
        let deadlines = self.table.iter().map(|(_, client)| client.connection.deadline);
        self.earliest = deadlines.filter(|deadline| *deadline > now).min();
        self.slots_where(|connection| connection.deadline <= now)
    }

    fn extend_deadlines(&mut self, by: Duration) {
        for (_, client) in &mut self.table {
            client.connection.deadline += by;
        }
        self.earliest = self.earliest.map(|earliest| earliest + by);
    }

    /// Counts a body that is about to be sent, unless it is small, is counted already, or is part
    /// of the binary.
    pub(super) fn count_body(&mut self, body: &Body) {
        if let Body::Shared(bytes) = body
            && bytes.len() > SMALL_BODY_BYTES
            && !self.has_body(bytes)
        {
            self.bodies.push(Arc::downgrade(bytes));
            self.max_body_bytes += bytes.len();
        }
    }

    /// Whether a client is taking this very body.
    pub(super) fn has_body(&self, bytes: &Arc<Vec<u8>>) -> bool {
        self.bodies.iter().any(|body| body.as_ptr() == Arc::as_ptr(bytes))
    }

    /// Memory for large bodies, in bytes.
    pub(super) fn body_bytes(&mut self) -> usize {
        self.bodies.retain(|body| body.strong_count() > 0);
        let present = self.bodies.iter().filter_map(Weak::upgrade);
        self.max_body_bytes = present.map(|body| body.len()).sum();
        self.max_body_bytes
    }

    /// No less than [`Clients::held_bytes`], and without a look at every large body.
    pub(super) fn max_held_bytes(&self) -> usize {
        self.buffered_bytes + self.max_body_bytes
    }

    /// Memory for all requests and responses of clients, in bytes.
    pub(super) fn held_bytes(&mut self) -> usize {
        self.buffered_bytes + self.body_bytes()
    }

    /// How many responses wait for their time.
    pub(super) fn delayed(&self) -> usize {
        self.delayed
    }

    /// The clients that hold memory, for requests or responses: first those that have made no
    /// progress for longest.
    pub(super) fn holders(&self) -> Vec<usize> {
        let holders = self.table.iter().filter(|(_, client)| client.counted_bytes > 0);
        let mut holders: Vec<_> =
            holders.map(|(slot, client)| (client.connection.last_progress, slot)).collect();
        holders.sort_unstable();
        holders.into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn after_a_stall_of_ours_everyone_has_time_still() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let start = Clock::start().now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let table = || {
            let mut clients = Clients::new(2, Arc::default(), start);
            for deadline in [10, 40] {
                let socket = TcpStream::connect(address).unwrap();
                let socket = mio::net::TcpStream::from_std(socket);
                let connection = Connection::new(address.ip(), start, at(deadline));
                clients.insert(Client::new(socket, None, connection));
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

    /// However many share a large body, it is held once, and as long as one of them takes it.
    #[test]
    fn a_shared_body_counts_once() {
        let mut clients = Clients::new(2, Arc::default(), Clock::start().now());
        let large: Body = vec![0; SMALL_BODY_BYTES + 1].into();
        for body in [large.clone(), large.clone(), vec![0; 9].into(), Body::Static(&[0; 99_999])] {
            clients.count_body(&body);
        }
        assert_eq!(clients.held_bytes(), SMALL_BODY_BYTES + 1);
        assert_eq!(clients.max_held_bytes(), clients.held_bytes());
        drop(large);
        assert_eq!(clients.max_held_bytes(), SMALL_BODY_BYTES + 1, "as of the last sum");
        assert_eq!(clients.held_bytes(), 0);
        assert_eq!(clients.max_held_bytes(), 0);
    }
}

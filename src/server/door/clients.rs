//! The table of HTTP clients, with what can be asked of all of them at no cost per client: who
//! makes room at a cap, when the next deadline is, how much memory they hold. Closes whom it is
//! told to close; answers nobody.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::admission::Address;
use super::connection::{Connection, Phase};
use crate::runtime::counters::Counters;

/// Shortest time between two looks at all deadlines: a deadline is kept this exactly.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A look at the deadlines that comes later than this was held up by us (the process was
/// suspended, say), and many turns' worth of what clients sent meanwhile may wait unread.
const STALL: Duration = Duration::from_secs(1);

/// What everyone has at least after a stall: time for us to read what has come.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Clients {
    table: Slab<Connection>,
    addresses: Slab<Entry>,
    by_address: HashMap<Address, usize>,
    spare: Spare,
    /// Rises with each connection that becomes spare.
    spares: u64,
    /// To be served in the next turn although nothing new comes from their sockets.
    listed: VecDeque<usize>,
    /// No deadline is before this one.
    earliest: Option<Instant>,
    swept: Instant,
    buffered: usize,
    delayed: usize,
    counters: Arc<Counters>,
}

/// The connections of one address.
struct Entry {
    address: Address,
    count: usize,
    spare: Spare,
}

impl Clients {
    /// Room for `max` connections, reserved at once and touched when needed: were these to grow
    /// amid a flood, they would lie above its buffers and keep their memory from going back to
    /// the system.
    pub(super) fn new(max: usize, counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            table: Slab::with_capacity(max),
            addresses: Slab::new(),
            by_address: HashMap::new(),
            spare: Spare { queue: VecDeque::with_capacity(2 * max + UNTIDY) },
            spares: 0,
            listed: VecDeque::with_capacity(max),
            earliest: None,
            swept: now,
            buffered: 0,
            delayed: 0,
            counters,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Connection> {
        self.table.get_mut(slot)
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> Vec<usize> {
        self.table.iter().map(|(slot, _)| slot).collect()
    }

    /// Whether any client waits for its answer, or for the rest of it.
    pub(super) fn any_unanswered(&self) -> bool {
        self.table.iter().any(|(_, connection)| {
            matches!(
                connection.phase,
                Phase::Waiting(_) | Phase::InFlight(_) | Phase::Answering(..)
            )
        })
    }

    /// Connections that count under the address of `peer`.
    pub(super) fn count_of(&self, peer: IpAddr) -> usize {
        let entry = self.by_address.get(&Address::from(peer));
        entry.and_then(|entry| self.addresses.get(*entry)).map_or(0, |entry| entry.count)
    }

    /// The entry for one connection more from `peer`.
    pub(super) fn count(&mut self, peer: IpAddr) -> usize {
        let address = Address::from(peer);
        let addresses = &mut self.addresses;
        let entry = *self.by_address.entry(address).or_insert_with(|| {
            addresses.insert(Entry { address, count: 0, spare: Spare::default() })
        });
        self.addresses[entry].count += 1;
        entry
    }

    /// The slot that the next [`Clients::insert`] fills.
    pub(super) fn next_slot(&self) -> usize {
        self.table.vacant_key()
    }

    /// Takes in a connection that was accepted and is idle.
    pub(super) fn insert(&mut self, connection: Connection) {
        let deadline = connection.deadline;
        let slot = self.table.insert(connection);
        self.counters.connections.add_one();
        self.note_deadline(deadline);
        self.make_spare(slot);
    }

    /// Takes a connection out; dropping it closes its socket.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Connection> {
        let connection = self.table.try_remove(slot)?;
        self.buffered = self.buffered.saturating_sub(connection.accounted);
        self.delayed -= usize::from(connection.is_delayed());
        self.counters.connections.remove_one();
        if let Some(entry) = connection.address {
            self.uncount(entry);
        }
        Some(connection)
    }

    /// Takes back what [`Clients::count`] gave.
    pub(super) fn uncount(&mut self, entry: usize) {
        let Some(counted) = self.addresses.get_mut(entry) else { return };
        counted.count -= 1;
        if counted.count == 0 {
            let gone = self.addresses.remove(entry);
            self.by_address.remove(&gone.address);
        }
    }

    /// Puts a client into a phase that must end by `deadline`.
    pub(super) fn enter(&mut self, slot: usize, phase: Phase, now: Instant, deadline: Instant) {
        let Some(connection) = self.table.get_mut(slot) else { return };
        connection.spare = 0;
        connection.last_progress = now;
        connection.deadline = deadline;
        self.delayed -= usize::from(connection.is_delayed());
        connection.phase = phase;
        self.delayed += usize::from(connection.is_delayed());
        let spare =
            matches!(connection.phase, Phase::Idle | Phase::Delayed(_) | Phase::Lingering(_));
        self.note_deadline(deadline);
        if spare {
            self.make_spare(slot);
        }
    }

    /// Gives a client more time in its phase.
    pub(super) fn extend(&mut self, slot: usize, deadline: Instant) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.deadline = deadline;
            self.note_deadline(deadline);
        }
    }

    /// From here on the connection may be closed when another needs its place.
    fn make_spare(&mut self, slot: usize) {
        let Some(connection) = self.table.get_mut(slot) else { return };
        self.spares += 1;
        connection.spare = self.spares;
        let place = (slot, self.spares);
        let entry = connection.address;
        let table = &self.table;
        self.spare.push(place, table, table.len());
        if let Some(entry) = entry.and_then(|entry| self.addresses.get_mut(entry)) {
            entry.spare.push(place, table, entry.count);
        }
    }

    /// The connection that has been spare for longest.
    pub(super) fn longest_spare(&mut self) -> Option<usize> {
        self.spare.pop(&self.table)
    }

    /// The connection from the address of `peer` that has been spare for longest.
    pub(super) fn longest_spare_of(&mut self, peer: IpAddr) -> Option<usize> {
        let entry = *self.by_address.get(&Address::from(peer))?;
        self.addresses.get_mut(entry)?.spare.pop(&self.table)
    }

    /// Has the client served in the next turn.
    pub(super) fn list(&mut self, slot: usize) {
        if let Some(connection) = self.table.get_mut(slot)
            && !std::mem::replace(&mut connection.listed, true)
        {
            self.listed.push_back(slot);
        }
    }

    /// How many are to be served in this turn.
    pub(super) fn listed(&self) -> usize {
        self.listed.len()
    }

    /// The next to be served.
    pub(super) fn unlist(&mut self) -> Option<usize> {
        let slot = self.listed.pop_front()?;
        if let Some(connection) = self.table.get_mut(slot) {
            connection.listed = false;
        }
        Some(slot)
    }

    fn note_deadline(&mut self, deadline: Instant) {
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// When to look at all deadlines next.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.earliest.map(|earliest| earliest.max(self.swept + SWEEP_EVERY))
    }

    /// Those whose phase has lasted too long, if it is time to look. After a stall that is
    /// nobody: deadlines move, since it was we who were away.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<usize> {
        let Some(due) = self.next_sweep().filter(|due| *due <= now) else { return Vec::new() };
        self.swept = now;
        let late = now - due;
        if late > STALL {
            self.postpone(late + STALL_GRACE);
            return Vec::new();
        }
        let past = |connection: &Connection| connection.deadline <= now;
        let deadlines = self.table.iter().map(|(_, connection)| connection.deadline);
        self.earliest = deadlines.filter(|deadline| *deadline > now).min();
        self.table.iter().filter(|(_, c)| past(c)).map(|(slot, _)| slot).collect()
    }

    fn postpone(&mut self, by: Duration) {
        for (_, connection) in &mut self.table {
            connection.deadline += by;
        }
        self.earliest = self.earliest.map(|earliest| earliest + by);
    }

    /// Brings the account of buffered bytes up to date with what one client holds.
    pub(super) fn account(&mut self, slot: usize) {
        let Some(connection) = self.table.get_mut(slot) else { return };
        let held = connection.held();
        self.buffered = self.buffered - connection.accounted + held;
        connection.accounted = held;
    }

    /// Memory for all requests and answers of clients, in bytes.
    pub(super) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Of that, what clients have not taken of their answers.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.table.iter().map(|(_, connection)| connection.unsent_bytes()).sum()
    }

    /// How many answers wait for their time.
    pub(super) fn delayed(&self) -> usize {
        self.delayed
    }

    /// Those who have not taken all of what they were sent.
    pub(super) fn unflushed(&self) -> Vec<usize> {
        let unflushed = self.table.iter().filter(|(_, connection)| !connection.is_flushed());
        unflushed.map(|(slot, _)| slot).collect()
    }

    /// Those who hold bytes, of requests and of answers alike: first who has made no progress for
    /// longest.
    pub(super) fn holders(&self) -> Vec<usize> {
        let holders = self.table.iter().filter(|(_, connection)| connection.accounted > 0);
        let mut holders: Vec<_> = holders.map(|(slot, c)| (c.last_progress, slot)).collect();
        holders.sort_unstable();
        holders.into_iter().map(|(_, slot)| slot).collect()
    }
}

/// Connections in the order in which they became spare. One that is spare no more keeps its
/// place until it is met or the queue is tidied, so that a heartbeat costs one push.
#[derive(Default)]
struct Spare {
    queue: VecDeque<(usize, u64)>,
}

/// Places beyond twice the connections that exist, before a queue is tidied: so the cost of
/// tidying is spread over as many pushes.
const UNTIDY: usize = 16;

impl Spare {
    fn push(&mut self, place: (usize, u64), table: &Slab<Connection>, connections: usize) {
        if self.queue.len() >= 2 * connections + UNTIDY {
            self.queue.retain(|place| holds(table, *place));
        }
        self.queue.push_back(place);
    }

    fn pop(&mut self, table: &Slab<Connection>) -> Option<usize> {
        while let Some(place) = self.queue.pop_front() {
            if holds(table, place) {
                return Some(place.0);
            }
        }
        None
    }
}

fn holds(table: &Slab<Connection>, (slot, spare): (usize, u64)) -> bool {
    table.get(slot).is_some_and(|connection| connection.spare == spare)
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
                let peer = address.ip();
                clients.insert(Connection::new(socket, peer, None, start, at(deadline)));
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

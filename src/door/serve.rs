//! What happens to a client, phase by phase: accepted, read, checked, answered, kept or closed,
//! and cut off when it is too slow or takes too much.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;

use super::Door;
use super::check::{Decision, Handshake};
use super::connection::{Connection, Incoming, Manner, Phase, Received, Then};
use super::feed::Upgrade;
use super::listen::{Accepted, MAX_ACCEPTS_PER_TURN};
use super::parse::{Head, Scan};
use super::reply::AnswerHead;
use crate::answer::{Answer, Body};
use crate::limits::MIB;

/// How long a client that was answered and is to be closed may take to stop sending.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How much of what it still sends is read and dropped, in bytes.
const LINGER_BYTES: usize = MIB;

/// Requests that are refused and have come whole keep their connection. Of others, the rest is
/// unread, and the connection ends.
const CLOSING: Manner = Manner { keep_alive: false, head_only: false };

/// What one look at a client's bytes came to.
enum Progress {
    /// They are the beginning of something.
    NeedMore,
    /// So many of them are dealt with.
    Took(usize),
}

// Accepting.
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
                    Accepted::Exhausted => self.counters.accept_errors.add_one(),
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

    /// Best effort: a socket that was just accepted takes a few hundred bytes at once.
    fn turn_away(&mut self, mut socket: TcpStream, detail: &str) {
        self.counters.connections_refused.add_one();
        self.counters.overloads.add_one();
        self.compose(&Answer::problem(503, detail), CLOSING);
        let _ = socket.write(&self.composed);
        let _ = socket.shutdown(Shutdown::Write);
        // Closing with bytes unread would reset the connection, and the answer with it.
        let _ = socket.read(&mut self.scratch);
    }
}

// Reading.
impl Door {
    /// Takes in what a client has sent, up to one request, if this phase takes anything.
    pub(super) fn serve(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        if !connection.takes_input() {
            return;
        }
        if let Phase::Lingering(left) = connection.phase {
            return self.linger(slot, left);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.read_request(slot, &mut scratch);
        self.scratch = scratch;
        self.clients.account(slot);
        self.make_room_in_memory();
    }

    /// What waits in the buffer comes first: no more is read before it is dealt with, so that
    /// a client which pipelines fills its socket and not our memory.
    fn read_request(&mut self, slot: usize, scratch: &mut [u8]) {
        let Some(connection) = self.clients.get(slot) else { return };
        let mut held = std::mem::take(&mut connection.input);
        if !held.is_empty()
            && let Progress::Took(count) = self.take_in(slot, &held)
        {
            held.drain(..count);
            return self.put_back(slot, held);
        }
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.receive(scratch) {
            Received::Nothing => self.put_back(slot, held),
            Received::End => self.close(slot),
            Received::Bytes(count) if held.is_empty() => {
                let fresh = &scratch[..count];
                let taken = match self.take_in(slot, fresh) {
                    Progress::Took(taken) => taken,
                    Progress::NeedMore => 0,
                };
                self.put_back(slot, fresh[taken..].to_vec());
            }
            Received::Bytes(count) => {
                held.extend_from_slice(&scratch[..count]);
                if let Progress::Took(taken) = self.take_in(slot, &held) {
                    held.drain(..taken);
                }
                self.put_back(slot, held);
            }
        }
    }

    /// Keeps what no request has used yet. What can go on without a new event is listed.
    fn put_back(&mut self, slot: usize, rest: Vec<u8>) {
        let Some(connection) = self.clients.get(slot) else { return };
        let idle_with_bytes = matches!(connection.phase, Phase::Idle) && !rest.is_empty();
        // An empty buffer is given back: most clients are idle.
        connection.input = if rest.is_empty() { Vec::new() } else { rest };
        if connection.takes_input() && (connection.is_readable() || idle_with_bytes) {
            self.clients.list(slot);
        }
    }

    fn take_in(&mut self, slot: usize, data: &[u8]) -> Progress {
        let Some(connection) = self.clients.get(slot) else { return Progress::NeedMore };
        match &mut connection.phase {
            Phase::Idle => {
                let deadline = self.now + self.limits.head_timeout;
                self.clients.enter(slot, Phase::Head(Scan::default()), self.now, deadline);
                self.take_in_head(slot, data)
            }
            Phase::Head(_) => self.take_in_head(slot, data),
            Phase::Body(incoming) if data.len() < incoming.body_bytes => Progress::NeedMore,
            Phase::Body(incoming) => {
                let (manner, length) = (incoming.manner, incoming.body_bytes);
                let body = &data[..length];
                match incoming.relay.take() {
                    Some(relay) => self.hand_over(slot, relay, body, manner),
                    None => self.answer_live(slot, manner),
                }
                Progress::Took(length)
            }
            _ => Progress::NeedMore,
        }
    }

    fn take_in_head(&mut self, slot: usize, data: &[u8]) -> Progress {
        let Some(connection) = self.clients.get(slot) else { return Progress::NeedMore };
        let Phase::Head(scan) = &mut connection.phase else { return Progress::NeedMore };
        let peer = connection.peer;
        let head = match scan.end(data, self.limits.max_head_bytes) {
            Ok(None) => return Progress::NeedMore,
            Ok(Some(end)) => {
                Head::parse(&data[..end], self.limits.max_headers).map(|head| (head, end))
            }
            Err(malformed) => Err(malformed),
        };
        match head {
            Ok((head, end)) => self.decide(slot, &head, peer, data, end),
            Err(malformed) => {
                let answer = Answer::problem(malformed.status, malformed.detail);
                self.answer(slot, &answer, CLOSING, Then::Linger);
                Progress::Took(data.len())
            }
        }
    }

    /// `data` begins with `head`, `end` bytes long.
    fn decide(
        &mut self,
        slot: usize,
        head: &Head<'_>,
        peer: std::net::IpAddr,
        data: &[u8],
        end: usize,
    ) -> Progress {
        // Beyond all memory is beyond the limit too.
        let length = head.fields.content_length.unwrap_or_default();
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let rest = &data[end..];
        let manner = Manner {
            keep_alive: head.keep_alive && self.ends_at.is_none(),
            head_only: head.method == "HEAD",
        };
        let relay = match self.rules.decide(head, peer) {
            Decision::Refuse(answer) => {
                return self.refuse(slot, &answer, manner, body_bytes, rest.len(), end);
            }
            Decision::Upgrade(handshake) => {
                self.upgrade(slot, handshake, rest.to_vec());
                return Progress::Took(data.len());
            }
            Decision::Live => None,
            Decision::Relay(_) if self.ends_at.is_some() => {
                let stopping = Answer::problem(503, "the server is stopping");
                return self.refuse(slot, &stopping, manner, body_bytes, rest.len(), end);
            }
            Decision::Relay(relay) => Some(relay),
        };
        if let Some(body) = rest.get(..body_bytes) {
            match relay {
                Some(relay) => self.hand_over(slot, relay, body, manner),
                None => self.answer_live(slot, manner),
            }
            return Progress::Took(end + body_bytes);
        }
        if head.fields.expects_continue && rest.is_empty() {
            self.send(slot, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let deadline = self.now + self.limits.body_timeout;
        let phase = Phase::Body(Box::new(Incoming { relay, body_bytes, manner }));
        self.clients.enter(slot, phase, self.now, deadline);
        Progress::Took(end)
    }

    /// A refusal keeps the connection when the whole request is here, to be skipped.
    fn refuse(
        &mut self,
        slot: usize,
        answer: &Answer,
        manner: Manner,
        body_bytes: usize,
        there: usize,
        end: usize,
    ) -> Progress {
        if body_bytes <= there {
            self.answer(slot, answer, manner, Then::keep_if(manner.keep_alive));
            return Progress::Took(end + body_bytes);
        }
        let manner = Manner { keep_alive: false, ..manner };
        self.answer(slot, answer, manner, Then::Linger);
        Progress::Took(end + there)
    }

    fn answer_live(&mut self, slot: usize, manner: Manner) {
        let live = Answer::json(200, Body::Static(br#"{"status":"ok"}"#));
        self.answer(slot, &live, manner, Then::keep_if(manner.keep_alive));
    }

    fn linger(&mut self, slot: usize, left: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.receive(&mut self.scratch) {
            Received::Bytes(count) if count < left => {
                connection.phase = Phase::Lingering(left - count);
                if connection.is_readable() {
                    self.clients.list(slot);
                }
            }
            Received::Nothing => {}
            Received::Bytes(_) | Received::End => self.close(slot),
        }
    }
}

// Becoming a dashboard.
impl Door {
    /// The socket leaves the door; it comes back only to be told 503.
    fn upgrade(&mut self, slot: usize, handshake: Handshake, read_ahead: Vec<u8>) {
        let stopping = self.ends_at.is_some();
        let permit = self.dashboards.admit(handshake.address).filter(|_| !stopping);
        let Some(permit) = permit else {
            let full = Answer::problem(503, "too many dashboards");
            return self.answer(slot, &full, CLOSING, Then::Linger);
        };
        let Some(mut connection) = self.clients.remove(slot) else { return };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        let socket = std::net::TcpStream::from(connection.socket);
        if let Err(error) = socket.set_nonblocking(false) {
            log::debug!("cannot hand a dashboard over: {error}");
            return;
        }
        let Handshake { accept_key, pool, .. } = handshake;
        let upgrade = Upgrade { socket, accept_key, read_ahead, pool, permit };
        if let Err((upgrade, error)) = self.feed.open(upgrade) {
            log::warn!("cannot serve a dashboard: {error}");
            if let Err(error) = self.take_back(upgrade.socket) {
                log::debug!("cannot tell the dashboard: {error}");
            }
        }
    }

    fn take_back(&mut self, socket: std::net::TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let peer = socket.peer_addr()?.ip().to_canonical();
        let mut socket = TcpStream::from_std(socket);
        let slot = self.clients.next_slot();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, self.client_token(slot), interest)?;
        let address = (!self.rules.is_proxy(peer)).then(|| self.clients.count(peer));
        self.clients.insert(Connection::new(socket, peer, address, self.now, self.now));
        let busy = Answer::problem(503, "no dashboard can be served now");
        self.answer(slot, &busy, CLOSING, Then::Linger);
        Ok(())
    }
}

// Answering.
impl Door {
    /// Gives an answer of the door's own.
    pub(super) fn answer(&mut self, slot: usize, answer: &Answer, manner: Manner, then: Then) {
        if answer.status.0 >= 400 {
            log::debug!("refused with {}: {}", answer.status.0, answer.status.phrase());
        }
        let bytes = answer.to_bytes();
        if let Ok(Some((head, body))) = AnswerHead::split(&bytes) {
            let body = if manner.head_only { &[] } else { body };
            self.begin(slot, &head, body, then, None);
        }
    }

    /// Begins an answer; `more` is the number of the request whose answer is not whole yet.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        head: &AnswerHead<'_>,
        body: &[u8],
        then: Then,
        more: Option<u64>,
    ) {
        if head.status == 503 {
            self.counters.overloads.add_one();
        }
        let then = if self.ends_at.is_some() && then == Then::Keep { Then::Close } else { then };
        let deadline = self.now + self.limits.answer_timeout;
        self.clients.enter(slot, Phase::Answering(then, more), self.now, deadline);
        let mut composed = std::mem::take(&mut self.composed);
        composed.clear();
        head.write(&mut composed, self.date.as_str(), then != Then::Keep);
        composed.extend_from_slice(body);
        self.send(slot, &composed);
        self.composed = composed;
    }

    fn compose(&mut self, answer: &Answer, manner: Manner) {
        self.composed.clear();
        let bytes = answer.to_bytes();
        if let Ok(Some((head, body))) = AnswerHead::split(&bytes) {
            head.write(&mut self.composed, self.date.as_str(), !manner.keep_alive);
            self.composed.extend_from_slice(body);
        }
    }

    pub(super) fn send(&mut self, slot: usize, bytes: &[u8]) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.send(bytes) {
            Ok(()) => self.go_on(slot),
            Err(_) => self.close(slot),
        }
    }

    /// Sends what was kept; the client has room again.
    pub(super) fn flush(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.flush() {
            Ok(()) => {
                self.go_on(slot);
                self.clients.account(slot);
            }
            Err(_) => self.close(slot),
        }
    }

    /// When the answer is out: the next request, or the end.
    fn go_on(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        let Phase::Answering(then, None) = connection.phase else { return };
        if !connection.is_flushed() {
            return;
        }
        let more = connection.is_readable() || !connection.input.is_empty();
        match then {
            Then::Keep if self.ends_at.is_none() => {
                let deadline = self.now + self.limits.idle_timeout;
                self.clients.enter(slot, Phase::Idle, self.now, deadline);
                if more {
                    self.clients.list(slot);
                }
            }
            // Closing with bytes unread would reset the connection, and the answer with it.
            Then::Linger => self.begin_to_linger(slot),
            Then::Keep | Then::Close if more => self.begin_to_linger(slot),
            Then::Keep | Then::Close => self.close(slot),
        }
    }

    fn begin_to_linger(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        connection.input = Vec::new();
        if connection.socket.shutdown(Shutdown::Write).is_err() {
            return self.close(slot);
        }
        let deadline = self.now + LINGER_TIME;
        self.clients.enter(slot, Phase::Lingering(LINGER_BYTES), self.now, deadline);
        self.clients.list(slot);
    }

    pub(super) fn close(&mut self, slot: usize) {
        // Closing the descriptor takes it off the poll's list.
        drop(self.clients.remove(slot));
    }
}

// Cutting off.
impl Door {
    pub(super) fn keep_deadlines(&mut self) {
        for slot in self.clients.expired(self.now) {
            let Some(connection) = self.clients.get(slot) else { continue };
            match &connection.phase {
                Phase::Head(_) => {
                    let late = Answer::problem(408, "the head did not come in time");
                    self.answer(slot, &late, CLOSING, Then::Linger);
                }
                Phase::Body(_) => {
                    let late = Answer::problem(408, "the body did not come in time");
                    self.answer(slot, &late, CLOSING, Then::Linger);
                }
                Phase::Waiting(_) | Phase::InFlight(_) => {
                    self.answer_unserved(slot, "no worker answered in time");
                }
                Phase::Idle | Phase::Answering(..) | Phase::Lingering(_) => self.close(slot),
            }
            self.clients.account(slot);
        }
    }

    /// 503 for a request that is whole.
    fn answer_unserved(&mut self, slot: usize, detail: &str) {
        let Some(connection) = self.clients.get(slot) else { return };
        let manner = match &connection.phase {
            Phase::Waiting(queued) => queued.pending.manner,
            Phase::InFlight(pending) => pending.manner,
            _ => CLOSING,
        };
        self.answer(slot, &Answer::problem(503, detail), manner, Then::keep_if(manner.keep_alive));
    }

    /// Within the budget again: the slowest go first. A little more room is made than is
    /// needed, since to look for the slowest is to look at all.
    pub(super) fn make_room_in_memory(&mut self) {
        let budget = self.limits.max_buffered_bytes;
        let held = |door: &Self| door.clients.buffered() + door.lanes.held();
        if held(self) <= budget {
            return;
        }
        let enough = budget - budget / 8;
        for slot in self.clients.holders() {
            if held(self) <= enough {
                break;
            }
            self.counters.buffer_evictions.add_one();
            self.evict(slot);
        }
    }

    fn evict(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        connection.input = Vec::new();
        if matches!(connection.phase, Phase::Answering(..)) || !connection.is_flushed() {
            return self.close(slot);
        }
        let full = Answer::problem(503, "the server holds too many requests at once");
        self.answer(slot, &full, CLOSING, Then::Linger);
        self.clients.account(slot);
    }

    /// No new connection, no new request: who rests is closed, who has sent half a request is
    /// told, and whose request is in flight gets the answer.
    pub(super) fn begin_to_stop(&mut self) {
        // Known before anyone is told, so that nobody is kept.
        self.ends_at = Some(self.now + super::STOP_GRACE);
        self.listeners.clear();
        for slot in self.clients.slots() {
            let Some(connection) = self.clients.get(slot) else { continue };
            match connection.phase {
                Phase::Idle | Phase::Lingering(_) => self.close(slot),
                Phase::Head(_) | Phase::Body(_) => {
                    let stopping = Answer::problem(503, "the server is stopping");
                    self.answer(slot, &stopping, CLOSING, Then::Linger);
                }
                Phase::Waiting(_) | Phase::InFlight(_) | Phase::Answering(..) => {}
            }
        }
    }
}

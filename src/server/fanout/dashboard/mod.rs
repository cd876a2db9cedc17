//! One dashboard's write side: what it is being sent, up to where, and whether it keeps up. Takes
//! updates from the pool's ring as its socket has room for them.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, send};

use super::Times;
use crate::runtime::counters::Counters;
use crate::server::event::WriteSide;
use crate::server::frame::{self, Frames};
use crate::server::limits::{MAX_BATCH_BYTES, MAX_UNSENT_BYTES, SLOW_SNAPSHOTS};
use crate::server::ring::Ring;

/// A try that moved half of what the kernel holds came late, one that moved an eighth came early.
const LATE_BYTES: usize = MAX_UNSENT_BYTES as usize / 2;
const EARLY_BYTES: usize = MAX_UNSENT_BYTES as usize / 8;

/// The first, the shortest and the longest wait before a socket that was full is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_SHORTEST: Duration = Duration::from_millis(1);
const RETRY_LONGEST: Duration = Duration::from_millis(160);

#[derive(Debug)]
pub(super) struct Dashboard {
    socket: Arc<dyn WriteSide>,
    /// Goes out before anything else, but never within a frame: at first the handshake's response,
    /// then control frames.
    urgent: Vec<u8>,
    /// What is being sent.
    current: Option<Piece>,
    state: State,
    /// The cursor: it has all changes up to this number, or has them in `current`. None before its
    /// snapshot.
    seq: Option<u64>,
    /// Bytes of changed states that it has taken since it last had all.
    changed_bytes: usize,
    /// Of its last snapshot.
    snapshot_bytes: usize,
    /// While something waits for room in the socket, or the dashboard has fallen behind.
    progress: Option<Progress>,
    last_text: Instant,
    last_ping: Instant,
    retry_at: Option<Instant>,
    retry_delay: Duration,
}

/// Frames, which many dashboards may share, of which the first bytes are sent.
#[derive(Debug)]
struct Piece {
    frames: Arc<Frames>,
    start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The hub has been asked for its snapshot, or for what changed.
    Waiting,
    /// It takes what follows its cursor.
    Reading,
    /// A Close is in `urgent`, or was sent.
    Closing { since: Instant, is_peer_gone: bool },
}

/// The bytes taken within a window of time.
#[derive(Debug, Clone, Copy)]
struct Progress {
    window_start: Instant,
    taken: usize,
}

/// How writing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// The socket has no room for the rest.
    Blocked,
    /// Nothing is left to send.
    Drained,
    /// The same, and the ring does not reach back to its cursor: the hub is to be asked for what
    /// changed after this number; without it, for a snapshot.
    FellBehind(Option<u64>),
    /// The connection is over.
    Ended,
}

impl Dashboard {
    pub(super) fn new(socket: Arc<dyn WriteSide>, greeting: Vec<u8>, now: Instant) -> Self {
        Self {
            socket,
            urgent: greeting,
            current: None,
            state: State::Waiting,
            seq: None,
            changed_bytes: 0,
            snapshot_bytes: 0,
            progress: None,
            last_text: now,
            last_ping: now,
            retry_at: None,
            retry_delay: RETRY_FIRST,
        }
    }

    /// Whether it is to be given the pool's next updates as soon as they come.
    pub(super) fn is_idle(&self) -> bool {
        self.cursor().is_some() && self.current.is_none() && self.urgent.is_empty()
    }

    /// The number up to which it has all, if it has had a snapshot.
    pub(super) fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// Whether the hub has been asked for something that has not come yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// The number after which it wants the pool's changes, if it takes them from the ring.
    pub(super) fn cursor(&self) -> Option<u64> {
        self.seq.filter(|_| self.state == State::Reading)
    }

    /// A snapshot, which is not older than the cursor.
    pub(super) fn take_snapshot(&mut self, frames: &Arc<Frames>) {
        self.snapshot_bytes = frames.bytes().len();
        self.changed_bytes = 0;
        self.state = State::Reading;
        self.take_from(frames, 0);
    }

    /// An answer to what the hub was asked: what the cursor lacks up to the last of `frames`.
    pub(super) fn take_changes(&mut self, frames: &Arc<Frames>) {
        self.changed_bytes += frames.bytes().len();
        self.state = State::Reading;
        self.take_from(frames, 0);
    }

    /// The number after which the hub is to send what changed. Changes come the oldest first, so
    /// for who reads more slowly than the pool changes, agents that change often are always among
    /// those that are yet to come: after more bytes than a snapshot has, it gets one, of all.
    fn resume_after(&self) -> Option<u64> {
        let is_slow =
            self.changed_bytes > SLOW_SNAPSHOTS * self.snapshot_bytes.max(MAX_BATCH_BYTES);
        self.seq.filter(|_| !is_slow)
    }

    /// Sends `frames` from `start` on. Only to one to which nothing is being sent.
    pub(super) fn take_from(&mut self, frames: &Arc<Frames>, start: usize) {
        self.seq = frames.last_seq().max(self.seq);
        self.current = Some(Piece { frames: Arc::clone(frames), start });
    }

    /// Sends control frames before all else. A Close is the last of them (RFC 6455 section 5.5.1).
    pub(super) fn send_control(&mut self, frames: &[u8], now: Instant) {
        if self.is_closing() {
            return;
        }
        self.urgent.extend_from_slice(frames);
        if frame::is_close(frames) {
            self.state = State::Closing { since: now, is_peer_gone: false };
        }
    }

    /// Nothing more will come from it: a Close that is owed may still go out.
    pub(super) fn note_peer_gone(&mut self, now: Instant) {
        if !self.is_closing() {
            self.urgent.clear();
            self.current = None;
        }
        self.state = State::Closing { since: now, is_peer_gone: true };
    }

    /// The hub has been asked.
    pub(super) fn wait(&mut self) {
        self.state = State::Waiting;
    }

    /// There is no memory for its snapshot: if it has had one, it goes on with what changed. It is
    /// to ask later, as in [`Dashboard::ask_later`].
    pub(super) fn forgo_snapshot(&mut self, now: Instant) -> Option<Instant> {
        self.state = State::Reading;
        self.changed_bytes = 0;
        self.ask_later(now)
    }

    /// The hub cannot be asked: it is to ask later. Returns when, if that is not arranged yet.
    pub(super) fn ask_later(&mut self, now: Instant) -> Option<Instant> {
        self.retry_after(RETRY_LONGEST, now)
    }

    /// Its socket is full: it is to be tried later. Returns when, as [`Dashboard::ask_later`].
    pub(super) fn retry_blocked(&mut self, now: Instant) -> Option<Instant> {
        self.retry_after(self.retry_delay, now)
    }

    fn retry_after(&mut self, delay: Duration, now: Instant) -> Option<Instant> {
        if self.has_retry(now) {
            return None;
        }
        self.retry_at = Some(now + delay);
        self.retry_at
    }

    /// Whether it is to be tried again later.
    pub(super) fn has_retry(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// What to write next, and whether that is `urgent`: once the frame that was begun is out.
    fn next_bytes(&self) -> (&[u8], bool) {
        let Some(Piece { frames, start }) = &self.current else { return (&self.urgent, true) };
        let ends_early = !self.urgent.is_empty() || self.is_closing();
        let end = if ends_early { frames.boundary(*start) } else { frames.bytes().len() };
        if end > *start { (&frames.bytes()[*start..end], false) } else { (&self.urgent, true) }
    }

    /// The first `sent` of `next_bytes` are out.
    fn advance(&mut self, sent: usize, is_urgent: bool, now: Instant) {
        if is_urgent {
            self.urgent.drain(..sent);
        } else if let Some(piece) = &mut self.current {
            piece.start += sent;
            if piece.start == piece.frames.bytes().len() {
                self.current = None;
                self.last_text = now;
            }
        }
    }

    /// Writes what waits, and then what follows in the ring, as far as there is room.
    pub(super) fn pump(&mut self, ring: &Ring, now: Instant, counters: &Counters) -> Pumped {
        let is_due = self.retry_at.take_if(|at| *at <= now).is_some();
        let mut taken = 0;
        let pumped = loop {
            let (bytes, is_urgent) = self.next_bytes();
            if bytes.is_empty() {
                match self.next_piece(ring, counters) {
                    Some(pumped) => break pumped,
                    None => continue,
                }
            }
            let length = bytes.len();
            let Ok(sent) = self.socket.send_now(bytes) else { return Pumped::Ended };
            self.advance(sent, is_urgent, now);
            taken += sent;
            if sent < length {
                break Pumped::Blocked;
            }
        };
        if is_due {
            self.adapt_retry(taken, pumped);
        }
        match pumped {
            Pumped::Blocked | Pumped::FellBehind(_) => {
                let begun = Progress { window_start: now, taken: 0 };
                self.progress.get_or_insert(begun).taken += taken;
            }
            Pumped::Drained if self.state != State::Waiting => self.progress = None,
            Pumped::Drained | Pumped::Ended => {}
        }
        pumped
    }

    /// Takes the next chunk of the ring, or says why there is none.
    fn next_piece(&mut self, ring: &Ring, counters: &Counters) -> Option<Pumped> {
        match (self.state, self.seq) {
            (State::Waiting | State::Closing { is_peer_gone: false, .. }, _) => {
                Some(Pumped::Drained)
            }
            (State::Closing { is_peer_gone: true, .. }, _) => Some(Pumped::Ended),
            (State::Reading, Some(seq)) if ring.reaches(seq) => {
                let Some(frames) = ring.after(seq) else {
                    self.changed_bytes = 0;
                    return Some(Pumped::Drained);
                };
                counters.deliveries.add(frames.count_after(seq) as u64);
                self.take_from(frames, frames.start_after(seq));
                None
            }
            (State::Reading, _) => Some(Pumped::FellBehind(self.resume_after())),
        }
    }

    /// Keeps the line busy with few tries: the next one comes sooner where the kernel had nearly
    /// run dry, and later where it took little of what waits.
    fn adapt_retry(&mut self, taken: usize, pumped: Pumped) {
        if taken >= LATE_BYTES || (pumped != Pumped::Blocked && taken > 0) {
            self.retry_delay = (self.retry_delay / 2).max(RETRY_SHORTEST);
        } else if taken < EARLY_BYTES && pumped == Pumped::Blocked {
            self.retry_delay = (2 * self.retry_delay).min(RETRY_LONGEST);
        }
    }

    /// Whether it is behind and has taken too little in the last [`Times::lag_timeout`].
    pub(super) fn is_lagging(&mut self, now: Instant, times: &Times) -> bool {
        let Some(progress) = &mut self.progress else { return false };
        // With nothing to take it is the dashboard that waits.
        let is_waiting = self.current.is_none() && self.urgent.is_empty();
        if !is_waiting && now.saturating_duration_since(progress.window_start) < times.lag_timeout {
            return false;
        }
        let is_lagging = !is_waiting && progress.taken < times.lag_min_bytes;
        *progress = Progress { window_start: now, taken: 0 };
        is_lagging
    }

    pub(super) fn is_close_overdue(&self, now: Instant, grace: Duration) -> bool {
        matches!(self.state, State::Closing { since, .. } if now >= since + grace)
    }

    /// The sequence number of the keep-alive that is due, if one is: only to one that is idle.
    pub(super) fn keepalive_seq(&self, now: Instant, after: Duration) -> Option<u64> {
        let is_due = self.is_idle() && now.saturating_duration_since(self.last_text) >= after;
        self.seq.filter(|_| is_due)
    }

    /// Whether a Ping is due; if so it counts as sent.
    pub(super) fn is_ping_due(&mut self, now: Instant, every: Duration) -> bool {
        let is_due = now.saturating_duration_since(self.last_ping) >= every;
        if is_due {
            self.last_ping = now;
        }
        is_due
    }
}

impl Drop for Dashboard {
    /// Ends the connection, which its subscriber sees, however the fanout thread comes to let go
    /// of it.
    fn drop(&mut self) {
        self.socket.end();
    }
}

impl WriteSide for TcpStream {
    /// The socket itself stays blocking, for the thread that reads it.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match retry_on_intr(|| send(self, bytes, flags)) {
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
            sent => Ok(sent?),
        }
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

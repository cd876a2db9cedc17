//! One dashboard's write side: its socket, what it is owed, and whether it keeps up.

#[cfg(test)]
mod tests;

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::queue::{Kind, Queue};
use super::{MAX_WRITE_BYTES, Times};
use crate::server::frame::{self, Frames};
use crate::server::limits::{MAX_BATCH_BYTES, MAX_UNSENT_BYTES};
use crate::wire::KIB;

/// Updates that may wait for a dashboard before it is better served by newest states: about what
/// a slow line is behind after a second of a busy pool. Beyond the kernel's own buffer.
const MAX_BACKLOG_BYTES: usize = 256 * KIB;

// A write with what was merged into it does not fill the backlog by itself.
const _: () = assert!(MAX_WRITE_BYTES + MAX_BATCH_BYTES < MAX_BACKLOG_BYTES);

/// A try that moved half of what the kernel holds came late, one that moved an eighth came early.
const LATE_BYTES: usize = MAX_UNSENT_BYTES as usize / 2;
const EARLY_BYTES: usize = MAX_UNSENT_BYTES as usize / 8;

/// The first, the shortest and the longest wait before a socket that was full is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_SHORTEST: Duration = Duration::from_millis(1);
const RETRY_LONGEST: Duration = Duration::from_millis(160);

#[derive(Debug)]
pub(super) struct Dashboard {
    socket: Arc<TcpStream>,
    /// The handshake's answer, until it goes out in front of the first thing that is sent: the
    /// snapshot, so that who has the answer has joined.
    greeting: Option<Vec<u8>>,
    queue: Queue,
    state: State,
    /// The sequence number up to which it has been sent everything, or has it in `queue`. None
    /// before its snapshot.
    seq: Option<u64>,
    /// Since when something waits, and how it is being taken.
    behind: Option<Behind>,
    last_text: Instant,
    last_ping: Instant,
    retry_at: Option<Instant>,
    retry_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The hub has been asked for its snapshot, or for what changed.
    Waiting,
    /// It gets every update.
    Live,
    /// It gets no updates: once its queue is empty, the hub is asked for what changed.
    Lagging,
    /// A Close is in its queue, or was sent.
    Closing { until: Instant, peer_gone: bool },
}

/// A window of time, and the bytes that were taken in it.
#[derive(Debug, Clone, Copy)]
struct Behind {
    window_start: Instant,
    taken: usize,
}

/// How giving something to a dashboard went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has all of it.
    All,
    /// Some of it waits.
    Queued,
    /// Too much would wait: it gets newest states instead.
    FellBehind,
    /// The connection is over.
    Broken,
}

/// How a second try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is still no room for all.
    Blocked,
    /// Nothing waits any more.
    Drained,
    /// The same, and the hub is to be asked for what changed after this number, or for a snapshot.
    Resumes(Option<u64>),
    /// The connection is over.
    Ended,
}

impl Dashboard {
    pub(super) fn new(socket: Arc<TcpStream>, greeting: Vec<u8>, now: Instant) -> Self {
        Self {
            socket,
            greeting: Some(greeting),
            queue: Queue::default(),
            state: State::Waiting,
            seq: None,
            behind: None,
            last_text: now,
            last_ping: now,
            retry_at: None,
            retry_delay: RETRY_FIRST,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// The hub has been asked.
    pub(super) fn wait(&mut self) {
        self.state = State::Waiting;
    }

    pub(super) fn seq(&self) -> Option<u64> {
        self.seq
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Sends the updates that it has not had, if it is live.
    pub(super) fn send_updates(&mut self, frames: &Arc<Frames>, now: Instant) -> Sent {
        if self.state != State::Live {
            return Sent::All;
        }
        let start = frames.start_after(self.seq.unwrap_or_default());
        let kept_up = self.queue.is_empty();
        let sent = self.send(frames, Kind::Updates, start, now);
        self.seq = frames.last_seq().max(self.seq);
        // Who had nothing waiting is not behind by one write, however large.
        if kept_up || self.queue.update_bytes() <= MAX_BACKLOG_BYTES || sent == Sent::Broken {
            return sent;
        }
        // Nor is who has taken something since the last try.
        if self.write_queue().is_err() {
            return Sent::Broken;
        }
        if self.queue.update_bytes() <= MAX_BACKLOG_BYTES {
            return Sent::Queued;
        }
        // Whatever was dropped before another one is superseded by what changed since.
        if let Some(first) = self.queue.drop_updates() {
            self.seq = Some(first - 1);
        }
        self.state = State::Lagging;
        Sent::FellBehind
    }

    /// Sends the snapshot of this number. `is_present`: it holds all that came before it in the
    /// hub's channel, so that what follows there can follow here.
    pub(super) fn send_snapshot(
        &mut self,
        frames: &Arc<Frames>,
        is_present: bool,
        now: Instant,
    ) -> Sent {
        self.seq = frames.last_seq();
        self.state = if is_present { State::Live } else { State::Lagging };
        self.send(frames, Kind::Snapshot, 0, now)
    }

    /// Sends what changed while it was behind. With `is_all` it is live again.
    pub(super) fn send_changes(
        &mut self,
        frames: &Arc<Frames>,
        is_all: bool,
        now: Instant,
    ) -> Sent {
        self.seq = frames.last_seq().max(self.seq);
        self.state = if is_all { State::Live } else { State::Lagging };
        self.send(frames, Kind::Updates, 0, now)
    }

    /// Updates were lost on the way here: what it missed is asked for.
    pub(super) fn note_gap(&mut self) {
        if self.state == State::Live {
            self.state = State::Lagging;
        }
    }

    /// The hub cannot be asked now, or there is no memory for the snapshot: asks again later.
    /// Returns when, if that is not arranged yet.
    pub(super) fn put_off(&mut self, now: Instant) -> Option<Instant> {
        self.state = State::Lagging;
        if self.retry_at.is_some() {
            return None;
        }
        self.retry_at = Some(now + RETRY_LONGEST);
        self.retry_at
    }

    /// Sends a message that carries no change, to a dashboard with an empty queue.
    pub(super) fn send_text(&mut self, frames: &Arc<Frames>, now: Instant) -> Sent {
        self.send(frames, Kind::Whole, 0, now)
    }

    fn send(&mut self, frames: &Arc<Frames>, kind: Kind, start: usize, now: Instant) -> Sent {
        if self.greet(now) == Sent::Broken {
            return Sent::Broken;
        }
        let mut start = start;
        if start == frames.bytes().len() {
            return Sent::All;
        }
        if self.queue.is_empty() {
            match send_now(&self.socket, &frames.bytes()[start..]) {
                Ok(sent) => {
                    self.note_taken(sent);
                    start += sent;
                }
                Err(Ended) => return Sent::Broken,
            }
            if start == frames.bytes().len() {
                self.last_text = now;
                self.behind = None;
                return Sent::All;
            }
        }
        self.queue.push(Arc::clone(frames), kind, start);
        self.fall_behind(now);
        Sent::Queued
    }

    fn fall_behind(&mut self, now: Instant) {
        self.behind.get_or_insert(Behind { window_start: now, taken: 0 });
    }

    fn greet(&mut self, now: Instant) -> Sent {
        self.greeting.take().map_or(Sent::All, |greeting| self.send_whole(greeting, now))
    }

    /// Sends control frames, between what waits.
    pub(super) fn send_control(&mut self, frames: Vec<u8>, now: Instant) -> Sent {
        match self.greet(now) {
            Sent::Broken => Sent::Broken,
            _ => self.send_whole(frames, now),
        }
    }

    fn send_whole(&mut self, frames: Vec<u8>, now: Instant) -> Sent {
        if !self.queue.is_empty() {
            self.queue.push_control(frames);
            return Sent::Queued;
        }
        match send_now(&self.socket, &frames) {
            Ok(sent) if sent == frames.len() => Sent::All,
            Ok(sent) => {
                self.queue.push(Arc::new(Frames::whole(frames)), Kind::Whole, sent);
                self.fall_behind(now);
                Sent::Queued
            }
            Err(Ended) => Sent::Broken,
        }
    }

    fn note_taken(&mut self, bytes: usize) {
        if let Some(behind) = &mut self.behind {
            behind.taken += bytes;
        }
    }

    /// Answers its control frames. A Close ends what it is sent, and by `until` the connection;
    /// behind a Close comes nothing, also no second one.
    pub(super) fn reply(&mut self, frames: Vec<u8>, now: Instant, until: Instant) -> Sent {
        if matches!(self.state, State::Closing { .. }) {
            return Sent::Queued;
        }
        if !frame::is_close(&frames) {
            return self.send_control(frames, now);
        }
        self.state = State::Closing { until, peer_gone: false };
        if self.queue.is_empty() {
            return self.send_control(frames, now);
        }
        self.queue.end_with(frames);
        Sent::Queued
    }

    /// Nothing more will come from it: a Close that is owed may still go out.
    pub(super) fn peer_gone(&mut self, until: Instant) -> Sent {
        match &mut self.state {
            State::Closing { .. } if !self.queue.is_empty() => {
                self.state = State::Closing { until, peer_gone: true };
                Sent::Queued
            }
            _ => Sent::Broken,
        }
    }

    /// Writes what waits, as far as there is room.
    pub(super) fn pump(&mut self, now: Instant) -> Pumped {
        self.retry_at = None;
        let Ok(taken) = self.write_queue() else { return Pumped::Ended };
        if taken > 0 || !self.queue.is_empty() {
            self.adapt_retry(taken);
        }
        if !self.queue.is_empty() {
            return Pumped::Blocked;
        }
        match self.state {
            State::Live => {
                self.behind = None;
                self.last_text = now;
                Pumped::Drained
            }
            State::Waiting => Pumped::Drained,
            State::Lagging => Pumped::Resumes(self.seq),
            State::Closing { peer_gone: true, .. } => Pumped::Ended,
            State::Closing { peer_gone: false, .. } => Pumped::Drained,
        }
    }

    /// Writes what waits as far as there is room, and returns how much that was.
    fn write_queue(&mut self) -> Result<usize, Ended> {
        let mut taken = 0;
        while let Some(head) = self.queue.head() {
            let length = head.len();
            let sent = send_now(&self.socket, head)?;
            self.queue.advance(sent);
            taken += sent;
            if sent < length {
                break;
            }
        }
        self.note_taken(taken);
        Ok(taken)
    }

    /// Keeps the line busy with few tries: the next one comes sooner where the kernel had nearly
    /// run dry, and later where it took little of what waits.
    fn adapt_retry(&mut self, taken: usize) {
        if taken >= LATE_BYTES || self.queue.is_empty() {
            self.retry_delay = (self.retry_delay / 2).max(RETRY_SHORTEST);
        } else if taken < EARLY_BYTES {
            self.retry_delay = (2 * self.retry_delay).min(RETRY_LONGEST);
        }
    }

    /// When to try again, if that is to be and is not arranged yet.
    pub(super) fn schedule_retry(&mut self, now: Instant) -> Option<Instant> {
        let resumes = self.queue.is_empty() && self.state == State::Lagging;
        if self.retry_at.is_some() || (self.queue.is_empty() && !resumes) {
            return None;
        }
        // Who has taken all that was sent is to ask at once.
        self.retry_at = Some(if resumes { now } else { now + self.retry_delay });
        self.retry_at
    }

    /// Why it is to be cut off, if it is.
    pub(super) fn check_lag(&mut self, now: Instant, times: &Times) -> Option<&'static str> {
        let behind = self.behind.as_mut()?;
        // With an empty queue it is the dashboard that waits.
        let waits = self.queue.is_empty();
        if now.saturating_duration_since(behind.window_start) >= times.lag_timeout || waits {
            if behind.taken < times.lag_min_bytes && !waits {
                return Some("took less than lag_min_bytes within lag_timeout");
            }
            *behind = Behind { window_start: now, taken: 0 };
        }
        None
    }

    pub(super) fn close_is_overdue(&self, now: Instant) -> bool {
        matches!(self.state, State::Closing { until, .. } if now >= until)
    }

    pub(super) fn wants_keepalive(&self, now: Instant, after: Duration) -> bool {
        self.is_live()
            && self.queue.is_empty()
            && now.saturating_duration_since(self.last_text) >= after
    }

    /// Whether a Ping is due; if so it counts as sent.
    pub(super) fn wants_ping(&mut self, now: Instant, every: Duration) -> bool {
        let wants = !matches!(self.state, State::Closing { .. })
            && now.saturating_duration_since(self.last_ping) >= every;
        if wants {
            self.last_ping = now;
        }
        wants
    }
}

impl Drop for Dashboard {
    /// Ends the connection in both directions, which the client thread sees as its end: however
    /// the fanout thread comes to let go of it.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The connection is over.
struct Ended;

/// Sends what the kernel has room for, which may be nothing. The socket itself stays blocking,
/// for the thread that reads it.
fn send_now(socket: &TcpStream, bytes: &[u8]) -> Result<usize, Ended> {
    loop {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(sent),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Ok(0),
            Err(_) => return Err(Ended),
        }
    }
}

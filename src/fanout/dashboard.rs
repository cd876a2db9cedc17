//! One dashboard's write side: its socket, what it is owed, and whether it keeps up.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::Times;
use super::queue::{Kind, Queue};
use crate::frame;
use crate::limits::KIB;

/// Updates that may wait for a dashboard before it is better served by a fresh snapshot: about
/// what a slow line is behind after a second of a busy pool. Beyond the kernel's own buffer.
const MAX_BACKLOG_BYTES: usize = 128 * KIB;

/// The first and the longest wait before a socket that was full is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_LONGEST: Duration = Duration::from_millis(160);

#[derive(Debug)]
pub(super) struct Dashboard {
    socket: Arc<TcpStream>,
    /// The handshake's answer, until it goes out in front of the first thing that is sent: the
    /// snapshot, so that who has the answer has joined.
    greeting: Option<Vec<u8>>,
    queue: Queue,
    state: State,
    /// Since when something is owed, and how it is being taken.
    behind: Option<Behind>,
    last_text: Instant,
    last_ping: Instant,
    retry_at: Option<Instant>,
    retry_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The hub has been asked for its snapshot.
    Waiting,
    /// It gets every update.
    Live,
    /// It fell behind: once it has taken what was begun, the hub is asked for a snapshot.
    Lagging,
    /// A Close is among what it is owed, or was sent.
    Closing { until: Instant, peer_gone: bool },
}

#[derive(Debug, Clone, Copy)]
struct Behind {
    since: Instant,
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
    /// Too much would wait: it will get a snapshot instead.
    FellBehind,
    /// The connection is over.
    Broken,
}

/// How a second try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is still no room for all.
    Blocked,
    /// Nothing is owed any more.
    Drained,
    /// The same, and a snapshot is to be asked for.
    CaughtUp,
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

    pub(super) fn awaits_snapshot(&self) -> bool {
        self.state == State::Waiting
    }

    pub(super) fn await_snapshot(&mut self) {
        self.state = State::Waiting;
    }

    /// Since when it has been behind, if it is owed a snapshot's rest.
    pub(super) fn taking_snapshot_since(&self) -> Option<Instant> {
        self.behind.filter(|_| self.queue.holds_snapshot()).map(|behind| behind.since)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Sends updates, or the snapshot that makes it live.
    pub(super) fn deliver(&mut self, frames: &Arc<Vec<u8>>, kind: Kind, now: Instant) -> Sent {
        if kind == Kind::Snapshot {
            self.state = State::Live;
        }
        if self.greet(now) == Sent::Broken {
            return Sent::Broken;
        }
        let mut sent = 0;
        if self.queue.is_empty() {
            match send_now(&self.socket, frames) {
                Ok(bytes) => sent = bytes,
                Err(Ended) => return Sent::Broken,
            }
            if sent == frames.len() {
                self.last_text = now;
                self.behind = None;
                return Sent::All;
            }
        }
        self.queue.push(Arc::clone(frames), kind, sent);
        self.fall_behind(now);
        if self.queue.update_bytes() > MAX_BACKLOG_BYTES {
            self.queue.drop_messages();
            self.state = State::Lagging;
            return Sent::FellBehind;
        }
        Sent::Queued
    }

    /// Sends a message that is this dashboard's alone, which is owed nothing else.
    pub(super) fn send_text(&mut self, frames: Vec<u8>, now: Instant) -> Sent {
        self.deliver(&Arc::new(frames), Kind::Updates, now)
    }

    fn fall_behind(&mut self, now: Instant) {
        self.behind.get_or_insert(Behind { since: now, window_start: now, taken: 0 });
    }

    fn greet(&mut self, now: Instant) -> Sent {
        self.greeting.take().map_or(Sent::All, |greeting| self.send_whole(greeting, now))
    }

    /// Sends control frames, between what it is owed.
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
                self.queue.push(Arc::new(frames), Kind::Whole, sent);
                self.fall_behind(now);
                Sent::Queued
            }
            Err(Ended) => Sent::Broken,
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
            State::Closing { peer_gone, .. } if !self.queue.is_empty() => {
                *peer_gone = true;
                self.state = State::Closing { until, peer_gone: true };
                Sent::Queued
            }
            _ => Sent::Broken,
        }
    }

    /// Writes what is owed, as far as there is room.
    pub(super) fn pump(&mut self, now: Instant) -> Pumped {
        self.retry_at = None;
        let mut taken = 0;
        while let Some(head) = self.queue.head() {
            let (length, sent) = match send_now(&self.socket, head) {
                Ok(sent) => (head.len(), sent),
                Err(Ended) => return Pumped::Ended,
            };
            self.queue.advance(sent);
            taken += sent;
            if sent < length {
                break;
            }
        }
        if let Some(behind) = &mut self.behind {
            behind.taken += taken;
        }
        self.retry_delay =
            if taken > 0 { RETRY_FIRST } else { (2 * self.retry_delay).min(RETRY_LONGEST) };
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
            State::Lagging => Pumped::CaughtUp,
            State::Closing { peer_gone: true, .. } => Pumped::Ended,
            State::Closing { peer_gone: false, .. } => Pumped::Drained,
        }
    }

    /// When to try again, if that is to be and is not arranged yet.
    pub(super) fn schedule_retry(&mut self, now: Instant) -> Option<Instant> {
        let wanted = !self.queue.is_empty() || self.state == State::Lagging;
        if !wanted || self.retry_at.is_some() {
            return None;
        }
        self.retry_at = Some(now + self.retry_delay);
        self.retry_at
    }

    /// Why it is to be cut off, if it is.
    pub(super) fn check_lag(&mut self, now: Instant, times: &Times) -> Option<&'static str> {
        let behind = self.behind.as_mut()?;
        if now.saturating_duration_since(behind.since) > times.lag_max {
            return Some("behind for longer than lag_max");
        }
        // Owed nothing, it waits for us.
        let waits_for_us = self.queue.is_empty();
        if now.saturating_duration_since(behind.window_start) >= times.lag_timeout || waits_for_us {
            if behind.taken < times.lag_min_bytes && !waits_for_us {
                return Some("took less than lag_min_bytes within lag_timeout");
            }
            *behind = Behind { window_start: now, taken: 0, ..*behind };
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

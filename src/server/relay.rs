//! What passes between the door and the workers: to them, in one header of a request, what the door
//! knows of it beside its route; from them, responses over a channel. Only the door writes to the
//! private socket that carries the header. Encodes, parses and hands over; decides nothing.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::auth::Viewer;
use crate::server::event::Stamp;
use crate::wire::id::PoolIndex;
use crate::wire::response::Response;

/// The header that carries a [`Relayed`]: `number nanoseconds-since-clock-base unix-milliseconds
/// scheme caller`. Short, since tiny_http reads it byte by byte.
pub(crate) const HEADER: &str = "X-Relay";

/// The caller, as the door has established it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The route asks for no credentials.
    Nobody,
    /// An agent, with a key of this pool.
    Agent(PoolIndex),
    /// A viewer.
    Viewer(Viewer),
}

/// What the door knows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relayed {
    /// When and in which order it came. The number also says whose request it is.
    pub stamp: Stamp,
    /// Whether the client came over TLS (a trusted proxy says so).
    pub is_secure: bool,
    pub caller: Caller,
}

impl Relayed {
    /// Appends the header's line to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, clock: &Clock) {
        let Stamp { number, at, wall } = self.stamp;
        let scheme = if self.is_secure { "https" } else { "http" };
        let nanos = clock.since_base(at).as_nanos();
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{HEADER}: {number} {nanos} {} {scheme} ", wall.0);
        let _ = match self.caller {
            Caller::Nobody => write!(out, "nobody\r\n"),
            Caller::Agent(PoolIndex(pool)) => write!(out, "agent {pool}\r\n"),
            Caller::Viewer(Viewer::All) => write!(out, "viewer all\r\n"),
            Caller::Viewer(Viewer::Pool(PoolIndex(pool))) => write!(out, "viewer {pool}\r\n"),
        };
    }

    /// Reads the value that [`Relayed::write`] wrote with the same clock.
    #[must_use]
    pub(crate) fn parse(value: &str, clock: &Clock) -> Option<Self> {
        let mut words = value.split(' ');
        let number = words.next()?.parse().ok()?;
        let at = clock.at(Duration::from_nanos(words.next()?.parse().ok()?));
        let wall = UnixMillis(words.next()?.parse().ok()?);
        let is_secure = words.next()? == "https";
        let pool = |word: &str| word.parse().ok().map(PoolIndex);
        let caller = match (words.next()?, words.next()) {
            ("nobody", None) => Caller::Nobody,
            ("agent", Some(word)) => Caller::Agent(pool(word)?),
            ("viewer", Some("all")) => Caller::Viewer(Viewer::All),
            ("viewer", Some(word)) => Caller::Viewer(Viewer::Pool(pool(word)?)),
            _ => return None,
        };
        let stamp = Stamp { number, at, wall };
        words.next().is_none().then_some(Self { stamp, is_secure, caller })
    }
}

/// Wakes the door, once for all that comes while it does not sleep.
#[derive(Debug)]
pub(crate) struct DoorWaker {
    waker: mio::Waker,
    sleeps: AtomicBool,
}

impl DoorWaker {
    #[must_use]
    pub(crate) fn new(waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self { waker, sleeps: AtomicBool::new(false) })
    }

    /// Called by the door around its wait for events. After saying that it will sleep it looks once
    /// more at what has come: a response that is sent later wakes it.
    pub(crate) fn set_sleeping(&self, sleeps: bool) {
        self.sleeps.store(sleeps, Ordering::SeqCst);
    }

    /// Wakes the door if it sleeps and was not woken yet.
    pub(crate) fn wake(&self) {
        if self.sleeps.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the door: {error}");
        }
    }
}

/// Takes the responses of one backend's workers to the door.
#[derive(Debug, Clone)]
pub(crate) struct Responder {
    responses: Sender<(u64, Response)>,
    waker: Arc<DoorWaker>,
}

impl Responder {
    /// A channel for `capacity` responses. With one for each request at the workers, none waits
    /// for room.
    #[must_use]
    pub(crate) fn new(capacity: usize, waker: Arc<DoorWaker>) -> (Self, Receiver<(u64, Response)>) {
        let (responses, received) = bounded(capacity);
        (Self { responses, waker }, received)
    }

    /// Responds to the request with this stamp's number, once the channel has room. A door that has
    /// ended wants no responses.
    pub(crate) fn send(&self, number: u64, response: Response) {
        if self.responses.send((number, response)).is_ok() {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_door_says_arrives() {
        let clock = Clock::start();
        let stamp = Stamp { number: 7, at: clock.now(), wall: clock.wall() };
        for (caller, is_secure) in [
            (Caller::Nobody, false),
            (Caller::Agent(PoolIndex(3)), true),
            (Caller::Viewer(Viewer::All), false),
            (Caller::Viewer(Viewer::Pool(PoolIndex(0))), true),
        ] {
            let relayed = Relayed { stamp, is_secure, caller };
            let mut line = Vec::new();
            relayed.write(&mut line, &clock);
            let line = String::from_utf8(line).unwrap();
            let value = line.strip_prefix("X-Relay: ").unwrap().strip_suffix("\r\n").unwrap();
            assert_eq!(Relayed::parse(value, &clock), Some(relayed));
        }
        for value in ["", "1 2", "1 2 3 http", "1 2 3 http agent x", "1 2 3 http nobody 1"] {
            assert_eq!(Relayed::parse(value, &clock), None, "{value}");
        }
    }
}

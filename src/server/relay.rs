//! What the door tells the workers about a request, beside its route: who calls, and the stamp.
//! Travels as headers over the private socket, where only the door writes. Encodes and parses;
//! owns nothing.

use std::time::Duration;

use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::auth::Viewer;
use crate::server::event::Stamp;
use crate::wire::id::PoolIndex;

/// Header that carries the [`Stamp`]: `number nanoseconds-since-clock-base unix-milliseconds`.
pub(crate) const STAMP: &str = "X-Stamp";
/// Header that carries the [`Caller`]: `nobody`, `agent 3`, `viewer all`, `viewer 3`.
pub(crate) const CALLER: &str = "X-Caller";
/// Header that is present when the client came over TLS (a trusted proxy says so).
pub(crate) const SECURE: &str = "X-Secure";

/// Who calls, as the door has established it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The route asks for no credentials.
    Nobody,
    /// An agent, with a key of this pool.
    Agent(PoolIndex),
    /// Someone who may look.
    Viewer(Viewer),
}

impl Caller {
    /// The value of [`CALLER`].
    #[must_use]
    pub(crate) fn encode(self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Agent(PoolIndex(pool)) => format!("agent {pool}"),
            Self::Viewer(Viewer::All) => "viewer all".to_owned(),
            Self::Viewer(Viewer::Pool(PoolIndex(pool))) => format!("viewer {pool}"),
        }
    }

    /// Reads what [`Caller::encode`] wrote.
    #[must_use]
    pub(crate) fn decode(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "nobody" => Some(Self::Nobody),
            Some(("agent", pool)) => Some(Self::Agent(PoolIndex(pool.parse().ok()?))),
            Some(("viewer", "all")) => Some(Self::Viewer(Viewer::All)),
            Some(("viewer", pool)) => {
                Some(Self::Viewer(Viewer::Pool(PoolIndex(pool.parse().ok()?))))
            }
            _ => None,
        }
    }
}

/// The value of [`STAMP`].
#[must_use]
pub(crate) fn encode_stamp(stamp: &Stamp, clock: &Clock) -> String {
    format!("{} {} {}", stamp.number, clock.since_base(stamp.at).as_nanos(), stamp.wall.0)
}

/// Reads what [`encode_stamp`] wrote, with the same clock.
#[must_use]
pub(crate) fn decode_stamp(text: &str, clock: &Clock) -> Option<Stamp> {
    let mut parts = text.split(' ');
    let number = parts.next()?.parse().ok()?;
    let at = clock.at(Duration::from_nanos(parts.next()?.parse().ok()?));
    let wall = UnixMillis(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Stamp { number, at, wall })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_door_says_arrives() {
        let clock = Clock::start();
        let stamp = Stamp { number: 7, at: clock.now(), wall: clock.wall() };
        assert_eq!(decode_stamp(&encode_stamp(&stamp, &clock), &clock), Some(stamp));
        for caller in [
            Caller::Nobody,
            Caller::Agent(PoolIndex(3)),
            Caller::Viewer(Viewer::All),
            Caller::Viewer(Viewer::Pool(PoolIndex(0))),
        ] {
            assert_eq!(Caller::decode(&caller.encode()), Some(caller));
        }
        assert_eq!(Caller::decode("agent x"), None);
        assert_eq!(decode_stamp("1 2", &clock), None);
    }
}

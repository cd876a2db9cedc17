//! When to accept connections: a few at a time, and again after every failure. Owns no socket; knows
//! nothing about connections.

use std::io;
use std::time::{Duration, Instant};

/// Connections accepted per listener and turn of the loop, so that a flood of new ones does not
/// delay those that are there.
pub(super) const MAX_ACCEPTS_PER_TURN: usize = 64;

/// First wait after a failure that only time (or a closed connection) can end; doubles up to
/// [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(10);

/// Longest wait after a failure: nothing tells us that descriptors were freed.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Time between two log lines about failing accepts.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What one attempt brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted<C> {
    /// A connection.
    Connection(C),
    /// The system lacks descriptors or memory; the next attempt is for later.
    Exhausted,
    /// The backlog is empty.
    Nothing,
}

/// When to accept from one acceptor. Readiness is edge-triggered: what is left in the backlog after
/// a turn's share or a failure is not announced again, so it is remembered here.
#[derive(Debug)]
pub(super) struct Acceptor {
    is_ready: bool,
    backoff: Backoff,
    logged_at: Option<Instant>,
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Self { is_ready: true, backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF), logged_at: None }
    }

    /// Connections have come.
    pub(super) fn set_ready(&mut self) {
        self.is_ready = true;
    }

    /// When to accept next; `None` while the backlog is empty. An instant that is past means now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.is_ready.then(|| self.backoff.until().unwrap_or(now))
    }

    /// Accepts one connection with `accept`.
    pub(super) fn accept<C>(
        &mut self,
        now: Instant,
        mut accept: impl FnMut() -> io::Result<C>,
    ) -> Accepted<C> {
        loop {
            match accept() {
                Ok(connection) => {
                    self.backoff.reset();
                    return Accepted::Connection(connection);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    return Accepted::Nothing;
                }
                // accept(2): failures of the one connection that was about to be accepted.
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.backoff.fail(now);
                    if self.logged_at.is_none_or(|at| now >= at + LOG_EVERY) {
                        self.logged_at = Some(now);
                        log::warn!("cannot accept a connection, trying again: {error}");
                    }
                    return Accepted::Exhausted;
                }
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
    )
}

/// Waits that double from one bound to the other with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min, until: None }
    }

    pub(super) fn fail(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(self.max);
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
        self.until = None;
    }

    /// The end of the wait, if there was a failure.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    fn errno(number: rustix::io::Errno) -> io::Result<u32> {
        Err(number.into())
    }

    /// Accepts what the test has put in, in order.
    fn accept(script: Vec<io::Result<u32>>) -> impl FnMut() -> io::Result<u32> {
        let mut script = script.into_iter();
        move || script.next().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    #[test]
    fn exhaustion_backs_off_from_ten_milliseconds_to_a_second_and_heals() {
        use rustix::io::Errno;
        let mut now = Clock::start().now();
        let errors = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::PERM];
        let script = (0..10).map(|turn| errno(errors[turn % errors.len()])).chain([Ok(7)]);
        let (mut acceptor, mut accept) = (Acceptor::new(), accept(script.collect()));
        for wait in [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000] {
            assert_eq!(acceptor.accept(now, &mut accept), Accepted::Exhausted);
            assert_eq!(acceptor.due(now), Some(now + Duration::from_millis(wait)));
            now += Duration::from_millis(wait);
        }
        assert_eq!(acceptor.accept(now, &mut accept), Accepted::Connection(7));
        assert_eq!(acceptor.due(now), Some(now), "there may be more in the backlog");
        assert_eq!(acceptor.accept(now, &mut accept), Accepted::Nothing);
        assert_eq!(acceptor.due(now), None);
        acceptor.set_ready();
        assert_eq!(acceptor.due(now), Some(now));
    }

    #[test]
    fn a_connection_that_failed_before_it_was_accepted_costs_nothing() {
        use rustix::io::Errno;
        let now = Clock::start().now();
        let mut accept = accept(vec![errno(Errno::CONNABORTED), errno(Errno::INTR), Ok(1)]);
        assert_eq!(Acceptor::new().accept(now, &mut accept), Accepted::Connection(1));
    }
}

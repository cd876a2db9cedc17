//! When to accept connections: a few at a time, and again after every failure. Owns no socket; knows
//! nothing about connections.

use std::io;
use std::time::{Duration, Instant};

/// Per listener and turn of the loop, so that a flood of new ones does not delay those that are
/// there.
pub(super) const MAX_ACCEPTS_PER_TURN: usize = 64;

/// After a failure that only time can end, the wait to the next try; it doubles with each in a row.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// Nothing tells us that descriptors were freed.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Time between two log lines about failing accepts.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// When to accept from one listener. What is left in the backlog after a turn's share or a failure
/// is not announced again (readiness is edge-triggered), so it is remembered here.
#[derive(Debug, Default)]
pub(super) struct Acceptor {
    pub(super) is_backlog_empty: bool,
    /// After failures in a row: the last wait and its end.
    backoff: Option<(Duration, Instant)>,
    logged_at: Option<Instant>,
}

impl Acceptor {
    /// When to accept next; `None` while the backlog is empty.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (!self.is_backlog_empty).then(|| self.backoff.map_or(now, |(_, until)| until))
    }

    /// Accepts one connection with `accept`. Fails with `WouldBlock` when there is none or it is not
    /// yet time to; with another kind when the system lacks descriptors or memory.
    pub(super) fn accept<C>(
        &mut self,
        now: Instant,
        mut accept: impl FnMut() -> io::Result<C>,
    ) -> io::Result<C> {
        if self.due(now).is_none_or(|due| due > now) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let accepted = accept();
            match &accepted {
                Ok(_) => self.backoff = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_backlog_empty = true;
                }
                Err(error) if concerns_one_connection(error) => continue,
                Err(error) => {
                    let wait = self.backoff.map_or(MIN_WAIT, |(wait, _)| MAX_WAIT.min(wait * 2));
                    self.backoff = Some((wait, now + wait));
                    if self.logged_at.is_none_or(|at| now >= at + LOG_EVERY) {
                        self.logged_at = Some(now);
                        log::warn!("cannot accept a connection, trying again: {error}");
                    }
                }
            }
            return accepted;
        }
    }
}

/// accept(2) reports failures of the connection that was about to be accepted.
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
        let (mut acceptor, mut accept) = (Acceptor::default(), accept(script.collect()));
        for wait in [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000] {
            let error = acceptor.accept(now, &mut accept).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(acceptor.due(now), Some(now + Duration::from_millis(wait)));
            let early = now + Duration::from_millis(wait - 1);
            let error = acceptor.accept(early, || Ok(0)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "too early");
            now += Duration::from_millis(wait);
        }
        assert_eq!(acceptor.accept(now, &mut accept).unwrap(), 7);
        assert_eq!(acceptor.due(now), Some(now), "there may be more in the backlog");
        assert!(acceptor.accept(now, &mut accept).is_err());
        assert_eq!(acceptor.due(now), None);
        acceptor.is_backlog_empty = false;
        assert_eq!(acceptor.due(now), Some(now));
    }

    #[test]
    fn a_connection_that_failed_before_it_was_accepted_costs_nothing() {
        use rustix::io::Errno;
        let now = Clock::start().now();
        let mut accept = accept(vec![errno(Errno::CONNABORTED), errno(Errno::INTR), Ok(1)]);
        assert_eq!(Acceptor::default().accept(now, &mut accept).unwrap(), 1);
    }
}

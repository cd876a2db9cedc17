//! When the next heartbeat is due, and which results are logged. Pure: results and random numbers
//! in, delays and log lines out.

use std::time::Duration;

use log::Level;

use super::client::HeartbeatError::{self, Rejected, Unauthorized, Unavailable};
use super::client::HeartbeatResult;
use super::machine::FIRST_WINDOW;

/// The agent's delays and timeouts; only tests use others than [`Timing::new`].
#[derive(Debug, Clone)]
pub(super) struct Timing {
    pub(super) interval: Duration,
    pub(super) first_window: Duration,
    /// After a failure; it doubles with each further one, up to `backoff_max`.
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    /// After a 401, which only a person can end.
    pub(super) unauthorized_retry: Duration,
    pub(super) request_timeout: Duration,
    /// For all that happens after the stop.
    pub(super) goodbye_timeout: Duration,
}

/// The longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

const MINUTE: Duration = Duration::from_secs(60);

impl Timing {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            first_window: FIRST_WINDOW,
            backoff_min: Duration::from_secs(1),
            // Retries at the interval cost the server no more than heartbeats do.
            backoff_max: MINUTE.min(interval),
            unauthorized_retry: MINUTE.max(interval),
            request_timeout: Duration::from_secs(10),
            goodbye_timeout: Duration::from_secs(1),
        }
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    timing: Timing,
    /// Since the last success.
    failures: u32,
    has_succeeded: bool,
    /// The last failure in the log, unless a success came after it.
    logged: Option<HeartbeatError>,
}

impl Schedule {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, failures: 0, has_succeeded: false, logged: None }
    }

    /// The delay before the next heartbeat: after success from when the last one was due, after
    /// failure from now. `random` is in 0..1.
    pub(super) fn next(&mut self, result: &HeartbeatResult, random: f64) -> Duration {
        let timing = &self.timing;
        match result {
            Ok(()) => {
                self.failures = 0;
                // A tenth more or less, so that agents that were started together drift apart. The
                // first one is half to all of it, which spreads them at once.
                let is_first = !std::mem::replace(&mut self.has_succeeded, true);
                let (least, spread) = if is_first { (0.5, 0.5) } else { (0.9, 0.2) };
                timing.interval.mul_f64(least + spread * random)
            }
            Err(Unauthorized { .. }) => timing.unauthorized_retry,
            Err(Rejected(_)) => timing.interval.max(timing.backoff_min),
            Err(Unavailable { retry_after, .. }) => {
                // 2^16 times any delay is over the maximum; more could overflow.
                let doubled = timing.backoff_min.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                // A quarter more or less, and up to a quarter more than the server asked for, so
                // that agents do not all come back at the same moment.
                let delay = doubled.min(timing.backoff_max).mul_f64(0.75 + 0.5 * random);
                let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                delay.max(asked.mul_f64(1.0 + 0.25 * random))
            }
        }
    }

    /// Whether the last heartbeat, if there was one, was not received.
    pub(super) fn is_failing(&self) -> bool {
        self.logged.is_some()
    }

    /// What to log, if the result differs from what the log says already.
    pub(super) fn log_line(&mut self, result: &HeartbeatResult) -> Option<(Level, String)> {
        let Err(error) = result else {
            let text = "the server receives our heartbeats again".to_owned();
            return self.logged.take().map(|_| (Level::Info, text));
        };
        match (&self.logged, error) {
            // Whatever the reasons are: they alternate while a server restarts.
            (Some(Unavailable { .. }), Unavailable { .. }) => return None,
            (Some(logged), error) if logged == error => return None,
            _ => self.logged = Some(error.clone()),
        }
        let retry = humantime::format_duration(self.timing.unauthorized_retry);
        Some(match error {
            Unauthorized { .. } => (Level::Error, format!("{error}; trying again every {retry}")),
            Rejected(_) => (Level::Error, error.to_string()),
            Unavailable { .. } => {
                (Level::Warn, format!("{error}; trying again, with the newest state"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn unavailable() -> HeartbeatResult {
        Err(Unavailable { reason: "refused".to_owned(), retry_after: None })
    }

    fn unavailable_for(seconds: u32) -> HeartbeatResult {
        let retry_after = Some(SECOND * seconds);
        Err(Unavailable { reason: "503".to_owned(), retry_after })
    }

    fn rejected(why: &str) -> HeartbeatResult {
        Err(Rejected(why.to_owned()))
    }

    fn unauthorized() -> HeartbeatResult {
        Err(Unauthorized { app_key: "key".to_owned() })
    }

    #[test]
    fn back_off_doubles_from_a_second_to_the_lesser_of_a_minute_and_the_interval() {
        for (interval, most) in [(2, 2), (30, 30), (300, 60)] {
            let mut schedule = Schedule::new(Timing::new(SECOND * interval));
            let waits: Vec<_> = (0..40).map(|_| schedule.next(&unavailable(), 0.5)).collect();
            assert_eq!(waits[0], SECOND);
            assert_eq!(waits[1], SECOND * 2);
            assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
            assert_eq!(waits[39], SECOND * most);
        }
    }

    #[test]
    fn success_ends_the_back_off() {
        let mut schedule = Schedule::new(Timing::new(SECOND * 30));
        for _ in 0..5 {
            schedule.next(&unavailable(), 0.5);
        }
        schedule.next(&Ok(()), 0.5);
        assert_eq!(schedule.next(&unavailable(), 0.5), SECOND);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_maximum_and_never_shortens_the_back_off() {
        let mut schedule = Schedule::new(Timing::new(SECOND * 30));
        assert_eq!(schedule.next(&unavailable_for(20), 0.0), SECOND * 20);
        assert_eq!(schedule.next(&unavailable_for(0), 0.5), SECOND * 2);
        assert_eq!(schedule.next(&unavailable_for(86_400), 0.0), MAX_RETRY_AFTER);
    }

    #[test]
    fn delays_vary_by_a_tenth_after_a_shorter_first_one() {
        let mut schedule = Schedule::new(Timing::new(SECOND * 30));
        assert_eq!(schedule.next(&Ok(()), 0.0), SECOND * 15, "the first delay");
        assert_eq!(schedule.next(&Ok(()), 0.0), SECOND * 27);
        assert_eq!(schedule.next(&Ok(()), 0.5), SECOND * 30);
    }

    /// From the second heartbeat on.
    #[test]
    fn a_thousand_agents_started_at_once_spread_out() {
        const AGENTS: usize = 1_000;
        let mut beats: Vec<Vec<f64>> = vec![Vec::new(); 4];
        for agent in 0..AGENTS {
            let mut schedule = Schedule::new(Timing::new(SECOND * 30));
            let mut at = 0.0;
            for (number, beat) in beats.iter_mut().enumerate() {
                // Even, and another order for each beat: 1..=4 have nothing in common with 1,009.
                let random = (agent * (number + 1) * 7 % 1_009) as f64 / 1_009.0;
                at += schedule.next(&Ok(()), random).as_secs_f64();
                beat.push(at);
            }
        }
        for beat in beats {
            let mut in_a_second = [0_usize; 200];
            beat.iter().for_each(|&at| in_a_second[at as usize] += 1);
            let most = in_a_second.iter().max().copied().unwrap_or_default();
            assert!(most <= AGENTS / 10, "{most} in one second");
        }
    }

    #[test]
    fn a_401_is_retried_slowly_and_other_rejections_at_the_interval() {
        let mut schedule = Schedule::new(Timing::new(SECOND * 2));
        assert_eq!(schedule.next(&unauthorized(), 0.5), SECOND * 60);
        assert_eq!(schedule.next(&rejected("404"), 0.5), SECOND * 2);
        let mut schedule = Schedule::new(Timing::new(SECOND * 300));
        assert_eq!(schedule.next(&unauthorized(), 0.5), SECOND * 300);
    }

    #[test]
    fn only_changes_are_logged() {
        let mut schedule = Schedule::new(Timing::new(SECOND * 2));
        let mut levels = |results: &[HeartbeatResult]| -> Vec<Option<Level>> {
            results.iter().map(|result| schedule.log_line(result).map(|(level, _)| level)).collect()
        };
        assert_eq!(levels(&[Ok(()), Ok(())]), [None, None]);
        assert_eq!(
            levels(&[unavailable(), unavailable_for(1), unavailable()]),
            [Some(Level::Warn), None, None]
        );
        assert_eq!(levels(&[Ok(()), Ok(())]), [Some(Level::Info), None]);
        assert_eq!(
            levels(&[rejected("a"), rejected("a"), rejected("b"), unauthorized()]),
            [Some(Level::Error), None, Some(Level::Error), Some(Level::Error)]
        );
    }
}

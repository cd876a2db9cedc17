//! When the next heartbeat is due, and what an outcome is worth in the log. Pure: outcomes and
//! chance come in, delays and log lines go out; it knows no clock, socket or thread.

use std::time::Duration;

use log::Level;

use super::machine::SHORTEST_WINDOW;

/// What became of one heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server has it.
    Received,
    /// 401: this key and secret are not the server's.
    Unauthorized,
    /// An answer that the same request will get again; with what the server said.
    Refused(String),
    /// No answer, or one that time may heal (408, 429, 5xx).
    Away {
        /// For people.
        reason: String,
        /// The server's own wish (RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
    },
}

/// Every wait of the agent. Tests make them short; the product takes [`Timing::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timing {
    /// Between heartbeats that are received.
    pub(super) interval: Duration,
    /// Before the first heartbeat, so that its CPU figure is measured and not the average
    /// since boot.
    pub(super) first_window: Duration,
    /// First and longest wait for a server that is away.
    pub(super) backoff_min: Duration,
    /// See `backoff_min`.
    pub(super) backoff_max: Duration,
    /// After a 401, which only a person can heal.
    pub(super) unauthorized_retry: Duration,
    /// One request in all; what takes longer is away.
    pub(super) request_timeout: Duration,
    /// How long the goodbye may hold up the end.
    pub(super) goodbye_timeout: Duration,
}

/// See [`Timing::first_window`]; with a margin, since a timer may fire a hair early against the
/// system's own clock.
pub(super) const FIRST_WINDOW: Duration = SHORTEST_WINDOW.saturating_add(Duration::from_millis(50));

/// The longest that a server may send us away for; beyond it we ask again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl Timing {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            first_window: FIRST_WINDOW,
            backoff_min: Duration::from_secs(1),
            // Retries as often as heartbeats cost a server no more than heartbeats do.
            backoff_max: LONGEST_RETRY.min(interval),
            unauthorized_retry: LONGEST_RETRY.max(interval),
            request_timeout: Duration::from_secs(10),
            goodbye_timeout: Duration::from_secs(1),
        }
    }
}

/// The state between outcomes: how long things have gone wrong, and what was said about it.
#[derive(Debug)]
pub(super) struct Pace {
    timing: Timing,
    /// Failed tries in a row.
    failures: u32,
    received_before: bool,
    trouble: Option<Trouble>,
}

/// A trouble that has been logged; the same one is not logged twice in a row.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    Away,
    Unauthorized,
    Refused(String),
}

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) level: Level,
    pub(super) text: String,
}

impl Pace {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, failures: 0, received_before: false, trouble: None }
    }

    /// How long after the heartbeat with this outcome the next one is due: counted from its
    /// sending when it was received, from its outcome when it was not. `chance` is anything in
    /// 0..1.
    pub(super) fn next(&mut self, outcome: &Outcome, chance: f64) -> Duration {
        let timing = &self.timing;
        match outcome {
            Outcome::Received => {
                self.failures = 0;
                let first = !std::mem::replace(&mut self.received_before, true);
                gap(timing.interval, first, chance)
            }
            Outcome::Unauthorized => timing.unauthorized_retry,
            Outcome::Refused(_) => timing.interval.max(timing.backoff_min),
            Outcome::Away { retry_after, .. } => {
                // 2^16 times any wait is beyond the cap; more would only risk an overflow.
                let doubled = timing.backoff_min.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                // A quarter around the wait, so that a returning server is not met in step.
                let wait = doubled.min(timing.backoff_max).mul_f64(0.75 + 0.5 * chance);
                let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                // Nor are those met in step whom the server sent away for the same time.
                wait.max(asked.mul_f64(1.0 + 0.25 * chance))
            }
        }
    }

    /// What this outcome adds to what the log already says, if anything.
    pub(super) fn note(&mut self, outcome: &Outcome) -> Option<Note> {
        let (trouble, level, text) = match outcome {
            Outcome::Received => {
                return self.trouble.take().map(|_| Note {
                    level: Level::Info,
                    text: "the server receives our heartbeats again".to_owned(),
                });
            }
            Outcome::Away { reason, .. } => (
                Trouble::Away,
                Level::Warn,
                format!(
                    "heartbeats don't get through ({reason}); trying again, with the newest state"
                ),
            ),
            Outcome::Unauthorized => (
                Trouble::Unauthorized,
                Level::Error,
                format!(
                    "the server does not accept our key and secret (401); trying again every {}",
                    humantime::format_duration(self.timing.unauthorized_retry)
                ),
            ),
            Outcome::Refused(why) => (
                Trouble::Refused(why.clone()),
                Level::Error,
                format!("the server refuses our heartbeats: {why}"),
            ),
        };
        if self.trouble.as_ref() == Some(&trouble) {
            return None;
        }
        self.trouble = Some(trouble);
        Some(Note { level, text })
    }
}

/// From one received heartbeat to the next: the interval, give or take a tenth, so that agents
/// that were started together drift apart. The first gap is cut anywhere in its latter half,
/// which spreads them at once instead of slowly.
fn gap(interval: Duration, first: bool, chance: f64) -> Duration {
    let (least, spread) = if first { (0.5, 0.5) } else { (0.9, 0.2) };
    interval.mul_f64(least + spread * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn away() -> Outcome {
        Outcome::Away { reason: "refused".to_owned(), retry_after: None }
    }

    fn away_for(seconds: u64) -> Outcome {
        Outcome::Away { reason: "503".to_owned(), retry_after: Some(SECOND * seconds as u32) }
    }

    #[test]
    fn back_off_doubles_from_a_second_to_the_lesser_of_a_minute_and_the_interval() {
        for (interval, most) in [(2, 2), (30, 30), (300, 60)] {
            let mut pace = Pace::new(Timing::new(SECOND * interval));
            let waits: Vec<_> = (0..40).map(|_| pace.next(&away(), 0.5)).collect();
            assert_eq!(waits[0], SECOND);
            assert_eq!(waits[1], SECOND * 2);
            assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
            assert_eq!(waits[39], SECOND * most);
        }
    }

    #[test]
    fn success_ends_the_back_off() {
        let mut pace = Pace::new(Timing::new(SECOND * 30));
        for _ in 0..5 {
            pace.next(&away(), 0.5);
        }
        pace.next(&Outcome::Received, 0.5);
        assert_eq!(pace.next(&away(), 0.5), SECOND);
    }

    #[test]
    fn retry_after_is_honoured_up_to_its_cap_and_never_shortens_the_back_off() {
        let mut pace = Pace::new(Timing::new(SECOND * 30));
        assert_eq!(pace.next(&away_for(20), 0.0), SECOND * 20);
        assert_eq!(pace.next(&away_for(0), 0.5), SECOND * 2);
        assert_eq!(pace.next(&away_for(86_400), 0.0), MAX_RETRY_AFTER);
    }

    #[test]
    fn beats_are_a_tenth_around_the_interval_after_a_shorter_first() {
        let mut pace = Pace::new(Timing::new(SECOND * 30));
        assert_eq!(pace.next(&Outcome::Received, 0.0), SECOND * 15, "the first gap");
        assert_eq!(pace.next(&Outcome::Received, 0.0), SECOND * 27);
        assert_eq!(pace.next(&Outcome::Received, 0.5), SECOND * 30);
    }

    /// A fleet that one command starts meets the server spread out from the second beat on.
    #[test]
    fn a_thousand_agents_started_at_once_do_not_beat_in_step() {
        const AGENTS: usize = 1_000;
        let mut beats: Vec<Vec<f64>> = vec![Vec::new(); 4];
        for agent in 0..AGENTS {
            let mut pace = Pace::new(Timing::new(SECOND * 30));
            let mut at = 0.0;
            for (number, beat) in beats.iter_mut().enumerate() {
                // Even, and another order for each beat: 1..=4 have nothing in common with 1,009.
                let chance = (agent * (number + 1) * 7 % 1_009) as f64 / 1_009.0;
                at += pace.next(&Outcome::Received, chance).as_secs_f64();
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
    fn a_401_is_retried_slowly_and_other_refusals_at_the_interval() {
        let mut pace = Pace::new(Timing::new(SECOND * 2));
        assert_eq!(pace.next(&Outcome::Unauthorized, 0.5), SECOND * 60);
        assert_eq!(pace.next(&Outcome::Refused("404".to_owned()), 0.5), SECOND * 2);
        let mut pace = Pace::new(Timing::new(SECOND * 300));
        assert_eq!(pace.next(&Outcome::Unauthorized, 0.5), SECOND * 300);
    }

    #[test]
    fn the_log_hears_of_changes_only() {
        let mut pace = Pace::new(Timing::new(SECOND * 2));
        let mut levels = |outcomes: &[Outcome]| -> Vec<Option<Level>> {
            outcomes.iter().map(|outcome| pace.note(outcome).map(|note| note.level)).collect()
        };
        assert_eq!(levels(&[Outcome::Received, Outcome::Received]), [None, None]);
        assert_eq!(levels(&[away(), away_for(1), away()]), [Some(Level::Warn), None, None]);
        assert_eq!(levels(&[Outcome::Received, Outcome::Received]), [Some(Level::Info), None]);
        let refused = |why: &str| Outcome::Refused(why.to_owned());
        assert_eq!(
            levels(&[refused("a"), refused("a"), refused("b"), Outcome::Unauthorized]),
            [Some(Level::Error), None, Some(Level::Error), Some(Level::Error)]
        );
    }
}

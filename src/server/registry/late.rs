//! When silence means that an agent is late. One rule, for states, histories and the page.

use std::time::Duration;

/// What an agent's interval is taken to be until it is observed.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(60);

/// Shorter intervals count as this long: a moment's delay on the way is not lateness.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(2);

/// Added to 2.5 intervals, for delays on the way.
const TOLERANCE: Duration = Duration::from_secs(2);

/// An agent that was silent for longer than this is late. `interval` is its observed one.
pub(super) fn late_after(interval: Option<Duration>) -> Duration {
    let interval = interval.unwrap_or(UNKNOWN_INTERVAL).max(SHORTEST_INTERVAL);
    interval * 5 / 2 + TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_and_a_half_intervals_and_two_seconds() {
        let seconds = |interval: f64| late_after(Some(Duration::from_secs_f64(interval)));
        for (interval, late) in [(30.0, 77.0), (2.5, 8.25), (2.0, 7.0), (1.0, 7.0), (0.0, 7.0)] {
            assert_eq!(seconds(interval).as_secs_f64(), late, "{interval}");
        }
        assert_eq!(late_after(None), Duration::from_secs(152));
    }
}

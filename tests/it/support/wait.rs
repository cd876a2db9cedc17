//! Waiting with deadlines, which detect hangs and measure nothing.

use std::time::{Duration, Instant};

/// For anything that normally happens at once; long enough for a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// [`DEADLINE`] from now.
    pub(crate) fn usual() -> Self {
        Self::after(DEADLINE)
    }

    /// `wait` from now.
    pub(crate) fn after(wait: Duration) -> Self {
        Self(now() + wait)
    }

    /// The remaining time; `None` after the deadline.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(now()).filter(|left| !left.is_zero())
    }
}

/// Limits a reader to a number of bytes per second.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u32,
    due: Instant,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u32) -> Self {
        Self { bytes_per_second, due: now() }
    }

    /// Pauses for as long as `bytes` take.
    pub(crate) fn spend(&mut self, bytes: usize) {
        let share = u32::try_from(bytes).unwrap();
        self.due += Duration::from_secs(1) * share / self.bytes_per_second;
        match self.due.checked_duration_since(now()) {
            Some(early) => pause(early),
            // Idle time is not made up for.
            None => self.due = now(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests of real processes need real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time as the server writes it: RFC 3339, UTC, milliseconds (rounded down).
pub(crate) fn wall() -> String {
    ago(0)
}

/// The moment so many seconds ago, likewise.
#[expect(clippy::disallowed_methods, reason = "tests of real processes need real time")]
pub(crate) fn ago(seconds: u64) -> String {
    let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
    humantime::format_rfc3339_millis(then).to_string()
}

/// Calls `probe` every 10 ms until it returns something, for events that cannot be waited for.
/// Panics with `what` after [`DEADLINE`].
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, probe)
}

/// [`eventually`] with another deadline.
pub(crate) fn eventually_within<T>(
    wait: Duration,
    what: &str,
    probe: impl FnMut() -> Option<T>,
) -> T {
    within(wait, probe).unwrap_or_else(|| panic!("not within {wait:?}: {what}"))
}

/// [`eventually_within`], with `None` at the deadline.
pub(crate) fn within<T>(wait: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(wait);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        deadline.left()?;
        pause(Duration::from_millis(10));
    }
}

/// For tests of what happens, or does not happen, within a time.
pub(crate) fn pause(time: Duration) {
    let _ = crossbeam_channel::never::<()>().recv_timeout(time);
}

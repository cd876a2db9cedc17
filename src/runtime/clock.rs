//! The one place that asks the operating system for the time. Threads hold a [`Clock`]; the core gets
//! instants as arguments.

#![expect(clippy::disallowed_methods, reason = "the clock is where time comes from")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic and wall time for one run of the process. Copies agree with one another.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// A clock whose monotonic zero is this moment.
    pub fn start() -> Self {
        Self { base: Instant::now() }
    }

    /// Monotonic now.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall-clock now, for what people and other machines read.
    pub fn wall(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// `instant` as a duration since this clock's zero, to cross a boundary as a number.
    pub fn since_base(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// The reverse of [`Clock::since_base`].
    pub fn at(&self, since_base: Duration) -> Instant {
        self.base + since_base
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl std::fmt::Display for UnixMillis {
    /// RFC 3339 section 5.6, UTC, always three digits of milliseconds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Year 9999 ends here; humantime refuses what lies beyond.
        const LAST: u64 = 253_402_300_799_999;
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_as_rfc_3339_with_milliseconds() {
        assert_eq!(UnixMillis(1_736_246_100_123).to_string(), "2025-01-07T10:35:00.123Z");
        assert_eq!(UnixMillis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}

//! What a dashboard can watch, as a value: hub and fanout threads keep a ring and readers for each
//! feed that somebody watches, and nothing for the others.

use std::ops::RangeInclusive;
use std::time::Duration;

use form_urlencoded::parse as parse_query;

use crate::wire::id::PoolIndex;

/// One stream of messages, the same for all dashboards that watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FeedId {
    /// A pool, each change in a message of its own.
    Updates(PoolIndex),
    /// A pool, at most one message in a period, of what changed.
    Batches(PoolIndex, Period),
    /// All pools in figures, for viewers of all.
    AllPools,
    /// The same of one pool, for its viewers.
    OnePool(PoolIndex),
}

impl FeedId {
    /// The feed of `pool` that this query asks for.
    ///
    /// # Errors
    /// The rule for the query's `batch_ms`.
    pub(crate) fn of_pool(pool: PoolIndex, query: Option<&str>) -> Result<Self, String> {
        let query = query.unwrap_or_default().as_bytes();
        let mut values = parse_query(query).filter(|(name, _)| name == BATCH_MS).map(|it| it.1);
        let Some(value) = values.next() else { return Ok(Self::Updates(pool)) };
        let period = Period::parse(&value).filter(|_| values.next().is_none());
        period.map(|period| Self::Batches(pool, period)).ok_or_else(|| {
            let (min, max) = (MIN_BATCH_MS, MAX_BATCH_MS);
            format!("{BATCH_MS} must be one whole number from {min} to {max} (milliseconds)")
        })
    }

    /// The pool that it shows; none where it shows all.
    pub(crate) fn pool(self) -> Option<PoolIndex> {
        match self {
            Self::Updates(pool) | Self::Batches(pool, _) | Self::OnePool(pool) => Some(pool),
            Self::AllPools => None,
        }
    }

    /// Whether it shows pools in figures, and no agent.
    pub(crate) fn is_overview(self) -> bool {
        matches!(self, Self::AllPools | Self::OnePool(_))
    }

    /// The time from one message to the next, at least.
    pub(crate) fn period(self) -> Duration {
        match self {
            Self::Updates(_) => Duration::ZERO,
            Self::AllPools | Self::OnePool(_) => OVERVIEW_PERIOD,
            Self::Batches(_, Period(ms)) => Duration::from_millis(ms.into()),
        }
    }

    /// All that [`FeedId::Batches`] of this pool lie within.
    pub(crate) fn batches(pool: PoolIndex) -> RangeInclusive<Self> {
        Self::Batches(pool, Period(0))..=Self::Batches(pool, Period(MAX_BATCH_MS))
    }
}

/// People read figures, and see no more of them.
const OVERVIEW_PERIOD: Duration = Duration::from_secs(1);

/// The parameter of the query.
const BATCH_MS: &str = "batch_ms";
const MIN_BATCH_MS: u16 = 50;
const MAX_BATCH_MS: u16 = 5_000;

/// No update waits longer for its time, whatever the feed.
pub(crate) const MAX_PERIOD: Duration = Duration::from_millis(MAX_BATCH_MS as u64);

/// Few, so that many dashboards share a batch: 5,000 clients with 5,000 values cost no more.
const CLASSES_MS: [u16; 7] = [MIN_BATCH_MS, 100, 250, 500, 1_000, 2_500, MAX_BATCH_MS];

/// The time between batches, in milliseconds: one of [`CLASSES_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Period(u16);

impl Period {
    /// The shortest class that is not shorter than what is asked for.
    fn parse(text: &str) -> Option<Self> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let ms: u16 = text.parse().ok().filter(|ms| is_number && *ms >= MIN_BATCH_MS)?;
        CLASSES_MS.into_iter().find(|class| *class >= ms).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const POOL: PoolIndex = PoolIndex(3);

    fn period_ms(query: &str) -> Option<u128> {
        FeedId::of_pool(POOL, Some(query)).ok().map(|feed| feed.period().as_millis())
    }

    #[test]
    fn without_the_parameter_each_change_is_a_message() {
        for query in [None, Some(""), Some("token=batch_ms"), Some("Batch_ms=7&batch=5")] {
            assert_eq!(FeedId::of_pool(POOL, query), Ok(FeedId::Updates(POOL)), "{query:?}");
        }
    }

    #[test]
    fn a_period_is_rounded_up_to_a_class() {
        for (ms, class) in
            [(50, 50), (51, 100), (250, 250), (251, 500), (2_501, 5_000), (5_000, 5_000)]
        {
            assert_eq!(period_ms(&format!("token=x&batch_ms={ms}")), Some(class), "{ms}");
            let feed = FeedId::of_pool(POOL, Some(&format!("batch_ms={ms}"))).unwrap();
            assert!(FeedId::batches(POOL).contains(&feed));
            assert!(!FeedId::batches(PoolIndex(2)).contains(&feed));
        }
        assert_eq!(period_ms("batch%5Fms=0250"), Some(250), "decoded");
    }

    #[test]
    fn what_is_not_one_number_in_range_is_refused() {
        for query in [
            "batch_ms",
            "batch_ms=",
            "batch_ms=0",
            "batch_ms=49",
            "batch_ms=5001",
            "batch_ms=-250",
            "batch_ms=%2B250",
            "batch_ms=+250",
            "batch_ms=2.5e2",
            "batch_ms=250ms",
            "batch_ms=NaN",
            "batch_ms=65786",
            "batch_ms=18446744073709551866",
            "batch_ms=250&batch_ms=250",
            "batch_ms=250&x&batch%5fms=1",
            "batch_ms=\u{0662}50",
        ] {
            let error = FeedId::of_pool(POOL, Some(query)).unwrap_err();
            assert!(error.contains("batch_ms") && error.contains("50 to 5000"), "{query}: {error}");
        }
    }
}

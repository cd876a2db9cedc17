//! How many descriptors the process may have, and limits that fit. Raises the soft limit; opens none.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::limits::{Limits, RESERVED_DESCRIPTORS};

/// The least that either limit shrinks to. With fewer the server would be useless, and it survives
/// running out of descriptors.
const MIN_CAP: usize = 8;

/// The limits, reduced to the descriptors that this process may have; logs a reduction.
pub(crate) fn fit_to_descriptors(limits: Limits) -> Limits {
    let (limits, warning) = match raise_descriptor_limit() {
        Ok(soft_limit) => fit_to(limits, soft_limit),
        Err(error) => (limits, Some(format!("cannot read the limit of descriptors: {error}"))),
    };
    if let Some(warning) = warning {
        log::warn!("{warning}");
    }
    limits
}

/// Raises the soft limit on descriptors to the hard one, and returns it; `u64::MAX` is no limit.
fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Shrinks `max_connections` and `max_dashboards` in proportion until both, each a descriptor, fit
/// below `soft_limit` beside [`RESERVED_DESCRIPTORS`]; neither below [`MIN_CAP`]. Returns also a
/// sentence for the log, if that changes anything.
fn fit_to(mut limits: Limits, soft_limit: u64) -> (Limits, Option<String>) {
    let (connections, dashboards) = (limits.max_connections, limits.max_dashboards);
    let wanted = connections.saturating_add(dashboards);
    let soft = usize::try_from(soft_limit).unwrap_or(usize::MAX);
    let room = soft.saturating_sub(RESERVED_DESCRIPTORS);
    if wanted <= room {
        return (limits, None);
    }
    let least = (connections.min(MIN_CAP), dashboards.min(MIN_CAP));
    // `room` is less than `wanted` here, so this is less than `connections`.
    let share = connections.saturating_mul(room) / wanted;
    limits.max_connections = share.min(room.saturating_sub(least.1)).max(least.0);
    limits.max_dashboards = room.saturating_sub(limits.max_connections).max(least.1);
    let sentence = format!(
        "the limit of {soft_limit} descriptors leaves room for {} of {connections} connections \
         (max_connections) and {} of {dashboards} dashboards (max_dashboards); a hard limit of \
         {} is enough for all (ulimit -Hn, or systemd's LimitNOFILE=)",
        limits.max_connections,
        limits.max_dashboards,
        wanted.saturating_add(RESERVED_DESCRIPTORS),
    );
    (limits, Some(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize, max_dashboards: usize) -> Limits {
        Limits { max_connections, max_dashboards, ..Limits::default() }
    }

    fn fitted(connections: usize, dashboards: usize, soft: usize) -> (usize, usize) {
        let (limits, _) = fit_to(limits(connections, dashboards), soft as u64);
        (limits.max_connections, limits.max_dashboards)
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let enough = 16_000 + RESERVED_DESCRIPTORS as u64;
        for soft in [enough, enough + 1, u64::MAX] {
            assert_eq!(fit_to(Limits::default(), soft), (Limits::default(), None), "{soft}");
        }
    }

    #[test]
    fn what_does_not_fit_shrinks_in_proportion_and_says_so() {
        let (limits, sentence) = fit_to(Limits::default(), 128);
        assert_eq!((limits.max_connections, limits.max_dashboards), (40, 40));
        assert_eq!(
            sentence.unwrap(),
            "the limit of 128 descriptors leaves room for 40 of 8000 connections \
             (max_connections) and 40 of 8000 dashboards (max_dashboards); a hard limit of 16048 \
             is enough for all (ulimit -Hn, or systemd's LimitNOFILE=)"
        );
        assert_eq!(fitted(8_000, 8_000, 16_047), (7_999, 8_000));
        assert_eq!(fitted(300, 100, 48 + 200), (150, 50));
    }

    #[test]
    fn neither_shrinks_below_the_least_nor_grows() {
        assert_eq!(fitted(8_000, 8_000, 0), (8, 8));
        assert_eq!(fitted(8_000, 8_000, 48 + 16), (8, 8));
        assert_eq!(fitted(8_000, 10, 48 + 100), (92, 8));
        assert_eq!(fitted(10, 8_000, 48 + 100), (8, 92));
        assert_eq!(fitted(3, 8_000, 48 + 100), (3, 97));
        assert_eq!(fitted(8_000, 3, 0), (8, 3));
    }

    #[test]
    fn every_fit_is_within_the_limit_or_at_the_least() {
        for connections in [1, 8, 9, 100, 8_000] {
            for dashboards in [1, 8, 9, 100, 8_000] {
                for room in [16, 17, 50, 109, 1_000, 15_999] {
                    let (c, d) = fitted(connections, dashboards, room + RESERVED_DESCRIPTORS);
                    assert!(c + d <= room, "{connections} {dashboards} {room}: {c} {d}");
                    assert!(c <= connections && d <= dashboards && c >= 1 && d >= 1);
                }
            }
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.current, after.maximum);
        assert_eq!(raised, after.maximum.unwrap_or(u64::MAX));
    }
}

//! The `[limits]` table: which limits it may set, and to which values. The defaults and their
//! reasons stand at [`Limits`].

use std::time::Duration;

use toml::Spanned;

use super::error::Problem;
use super::file::{Source, Table};
use super::units::{COUNT, SIZE, Scalar, TIME, Unit};
use crate::server::limits::Limits;
use crate::wire::{KIB, MIB};

/// Below this a healthy client on a busy network would be cut off.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Beyond this a limit on time limits nothing.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Each dashboard is a thread, and systems stop somewhat above this.
const MAX_DASHBOARDS: usize = 100_000;
/// More descriptors than systems grant one process.
const MAX_CONNECTIONS: usize = 1_000_000;

/// Names of the first release that cannot be set any more, and what holds instead.
pub(super) const GONE_LIMITS: [(&str, &str); 11] = [
    ("answer_timeout", "a client has `lag_timeout` for each `lag_min_bytes` of its answer"),
    ("lag_max", "a dashboard that is behind has `lag_timeout` for each `lag_min_bytes`"),
    ("max_head_bytes", "a request's head may have 8 KiB"),
    ("max_headers", "a request may have 64 headers"),
    ("max_body_bytes", "a heartbeat's body may have 64 KiB"),
    ("head_timeout", "a request's head has 10 s to arrive"),
    ("body_timeout", "a request's body has 10 s to arrive"),
    ("idle_timeout", "an idle connection is closed after 75 s"),
    ("worker_timeout", "a request that is not answered within 5 s gets 503"),
    ("max_in_flight", "1,024 requests are in work at a time, and others wait"),
    ("max_tasks_per_heartbeat", "a heartbeat may have 256 running tasks"),
];

/// Checks one value that has a unit and bounds; none where it is a mistake.
pub(super) fn bounded<T: PartialOrd + Copy>(
    source: &Source<'_>,
    subject: &str,
    value: &Spanned<Scalar>,
    unit: &Unit<T>,
    (min, max): (T, T),
) -> Option<T> {
    (unit.read)(value.get_ref())
        .ok_or(Problem::Form(unit.rule))
        .and_then(|read| within(read, unit, (min, max)))
        .map_err(|problem| source.report(Some(value.span()), subject, problem))
        .ok()
}

/// `value`, if it is within its bounds.
pub(super) fn within<T: PartialOrd + Copy>(
    value: T,
    unit: &Unit<T>,
    (min, max): (T, T),
) -> Result<T, Problem> {
    if value < min || value > max {
        let [given, min, max] = [value, min, max].map(unit.show);
        return Err(Problem::Range { given, min, max });
    }
    Ok(value)
}

macro_rules! limits {
    ($($name:ident: $unit:ident in $min:expr, $max:expr;)*) => {
        /// `[limits]`, every key optional.
        #[derive(Debug, Default)]
        pub(super) struct LimitsTable {
            $($name: Option<Spanned<Scalar>>,)*
        }

        impl LimitsTable {
            pub(super) fn read(table: &mut Table<'_>) -> Self {
                Self { $($name: table.scalar(stringify!($name)),)* }
            }

            /// What the value of a key must be.
            pub(super) fn rule(key: &str) -> Option<&'static str> {
                match key {
                    $(stringify!($name) => Some($unit.rule),)*
                    _ => None,
                }
            }

            /// The defaults, changed where the table says so.
            pub(super) fn checked(&self, source: &Source<'_>) -> Limits {
                let mut limits = Limits::default();
                $(if let Some(value) = &self.$name {
                    let subject = concat!("[limits] ", stringify!($name));
                    let read = bounded(source, subject, value, &$unit, ($min, $max));
                    limits.$name = read.unwrap_or(limits.$name);
                })*
                limits
            }
        }

        /// Name, value and default of each limit that is not at its default.
        #[must_use]
        pub(crate) fn changed_limits(limits: &Limits) -> Vec<(&'static str, String, String)> {
            let defaults = Limits::default();
            let mut changed = Vec::new();
            $(if limits.$name != defaults.$name {
                let (value, default) = (limits.$name, defaults.$name);
                changed.push((stringify!($name), ($unit.show)(value), ($unit.show)(default)));
            })*
            changed
        }

        /// Name and default of each limit, in the order of the documentation.
        #[must_use]
        pub(crate) fn default_limits() -> Vec<(&'static str, String)> {
            let defaults = Limits::default();
            vec![$((stringify!($name), ($unit.show)(defaults.$name))),*]
        }
    };
}

limits! {
    max_connections: COUNT in 1, MAX_CONNECTIONS;
    max_connections_per_address: COUNT in 1, MAX_CONNECTIONS;
    max_dashboards: COUNT in 1, MAX_DASHBOARDS;
    max_dashboards_per_address: COUNT in 1, MAX_DASHBOARDS;
    max_agents_per_pool: COUNT in 1, 1_000_000;
    // One heartbeat of max_body_bytes at least.
    max_pool_bytes: SIZE in 64 * KIB, 64 * KIB * MIB;
    // Below, the pipes' own buffers would be all of it, and one request might not fit.
    max_buffered_bytes: SIZE in MIB, 64 * KIB * MIB;
    lag_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    lag_min_bytes: SIZE in 1, 16 * MIB;
}

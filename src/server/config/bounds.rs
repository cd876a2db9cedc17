//! The `[limits]` table: which values each limit may take. The defaults and their reasons stand
//! at [`Limits`].

use std::time::Duration;

use toml::Spanned;

use super::error::Problem;
use super::file::{Source, Table};
use super::units::{COUNT, SIZE, Scalar, TIME, Unit};
use crate::server::limits::{HUB_INBOX, Limits, MAX_GOODBYES};
use crate::wire::{KIB, MIB};

/// Below this a healthy client on a busy network would be cut off.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Beyond this a limit on time limits nothing.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// More requests at a time than this, and the goodbyes that are remembered could be fewer
/// than what can overtake them.
const MAX_IN_FLIGHT: usize = MAX_GOODBYES - HUB_INBOX;
/// Each dashboard is a thread, and systems stop somewhat above this.
const MAX_DASHBOARDS: usize = 100_000;
/// More descriptors than systems grant one process.
const MAX_CONNECTIONS: usize = 1_000_000;

/// Limits of the first release, and what holds instead.
pub(super) const GONE_LIMITS: [(&str, &str); 2] = [
    ("answer_timeout", "a client has `lag_timeout` for each `lag_min_bytes` of its answer"),
    ("lag_max", "a dashboard that is behind has `lag_timeout` for each `lag_min_bytes`"),
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
                self.related(source, &limits);
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
    max_head_bytes: SIZE in KIB, MIB;
    max_headers: COUNT in 8, 1_024;
    max_body_bytes: SIZE in KIB, 16 * MIB;
    // Below, the pipes' own buffers would be all of it.
    max_buffered_bytes: SIZE in MIB, 64 * KIB * MIB;
    head_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    body_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    idle_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    worker_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    max_connections: COUNT in 1, MAX_CONNECTIONS;
    max_connections_per_address: COUNT in 1, MAX_CONNECTIONS;
    max_in_flight: COUNT in 1, MAX_IN_FLIGHT;
    max_dashboards: COUNT in 1, MAX_DASHBOARDS;
    max_dashboards_per_address: COUNT in 1, MAX_DASHBOARDS;
    max_agents_per_pool: COUNT in 1, 1_000_000;
    max_pool_bytes: SIZE in KIB, 64 * KIB * MIB;
    max_tasks_per_heartbeat: COUNT in 1, 65_536;
    lag_timeout: TIME in MIN_TIMEOUT, MAX_TIMEOUT;
    lag_min_bytes: SIZE in 1, 16 * MIB;
}

impl LimitsTable {
    /// Limits that only make sense together. The error points at whichever the file gives.
    fn related(&self, source: &Source<'_>, limits: &Limits) {
        let below = |subject: &str, keys: &[&Option<Spanned<Scalar>>], problem| {
            let span = |key: &&Option<Spanned<Scalar>>| key.as_ref().map(Spanned::span);
            if keys.iter().map(span).all(|span| source.is_sound(span)) {
                let span = keys.iter().find_map(span);
                source.report(span, format!("[limits] {subject}"), problem);
            }
        };
        let size = |bytes| (SIZE.show)(bytes);
        let one_request = limits.max_head_bytes + limits.max_body_bytes;
        if limits.max_buffered_bytes < one_request {
            let problem = Problem::Below {
                given: size(limits.max_buffered_bytes),
                other: "one request of max_head_bytes and max_body_bytes together",
                least: size(one_request),
            };
            let keys = [&self.max_buffered_bytes, &self.max_body_bytes, &self.max_head_bytes];
            below("max_buffered_bytes", &keys, problem);
        }
        if limits.max_pool_bytes < limits.max_body_bytes {
            let problem = Problem::Below {
                given: size(limits.max_pool_bytes),
                other: "one heartbeat of max_body_bytes",
                least: size(limits.max_body_bytes),
            };
            below("max_pool_bytes", &[&self.max_pool_bytes, &self.max_body_bytes], problem);
        }
    }
}

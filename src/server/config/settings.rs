//! The settings that are numbers with a unit: `evict_after`, and the table `[limits]`. Says which
//! values they may take; the defaults and their reasons stand at [`Limits`].

use std::time::Duration;

use toml::de::DeValue;

use super::source::{Table, Value};
use crate::server::limits::Limits;
use crate::wire::{KIB, MIB};

/// What a number of the file counts, and how it is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Milliseconds,
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1_024 * MIB as u64), ("MiB", MIB as u64), ("KiB", KIB as u64), ("B", 1)];

impl Unit {
    /// What is allowed, for an error.
    const fn rule(self) -> &'static str {
        match self {
            Self::Count => "a whole number",
            Self::Bytes => {
                "a whole number of bytes, or a text such as \"64 KiB\" (B, KiB, MiB, GiB)"
            }
            Self::Milliseconds => "a text with a unit, such as \"10s\" or \"5m\"",
        }
    }

    fn read(self, value: &DeValue<'_>) -> Option<u64> {
        match (self, value) {
            (Self::Count | Self::Bytes, DeValue::Integer(number)) => {
                let digits = number.as_str();
                // A number that is too large for the type is out of every range, as the largest is.
                let read = u64::from_str_radix(digits, number.radix()).unwrap_or(u64::MAX);
                (!digits.starts_with('-')).then_some(read)
            }
            (Self::Bytes, DeValue::String(text)) => read_size(text.trim()),
            (Self::Milliseconds, DeValue::String(text)) => {
                humantime::parse_duration(text).ok().map(milliseconds)
            }
            _ => None,
        }
    }

    fn show(self, number: u64) -> String {
        match self {
            Self::Count => number.to_string(),
            Self::Bytes => show_size(number),
            Self::Milliseconds => {
                humantime::format_duration(Duration::from_millis(number)).to_string()
            }
        }
    }
}

fn read_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let (_, factor) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let digits = digits.trim_end();
    // `parse` accepts a plus sign, which a size does not have.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse::<u64>().ok()?.checked_mul(factor)).flatten()
}

/// In the largest unit that leaves a whole number.
fn show_size(bytes: u64) -> String {
    let is_whole = |(_, factor): &(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let (unit, factor) = SIZE_UNITS.into_iter().find(is_whole).unwrap_or(("B", 1));
    format!("{} {unit}", bytes / factor)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Which values a setting may take.
#[derive(Debug)]
pub(super) struct Range {
    unit: Unit,
    min: u64,
    max: u64,
}

impl Range {
    /// None for a mistake, which is reported. Times are in milliseconds.
    pub(super) fn read(&self, value: &Value<'_>) -> Option<u64> {
        let number =
            self.unit.read(value.get()).ok_or_else(|| format!("must be {}", self.unit.rule()));
        number.and_then(|number| self.check(number)).map_err(|why| value.refuse(why)).ok()
    }

    pub(super) fn check(&self, number: u64) -> Result<u64, String> {
        if (self.min..=self.max).contains(&number) {
            return Ok(number);
        }
        let [given, min, max] = [number, self.min, self.max].map(|number| self.unit.show(number));
        Err(format!("{given} is out of range, {min} to {max} is allowed"))
    }
}

/// At least 100 ms: the eviction tick is a quarter of it, and a faster one would only burn CPU. At
/// most 30 days: an agent that is silent for a month is not coming back.
pub(super) const EVICT_AFTER: Range =
    Range { unit: Unit::Milliseconds, min: 100, max: 30 * 24 * 60 * 60 * 1_000 };

/// A limit that the file may set.
struct Setting {
    name: &'static str,
    range: Range,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

/// A field of [`Limits`] as a number.
trait Number {
    fn to_number(self) -> u64;
    fn of_number(number: u64) -> Self;
}

impl Number for usize {
    fn to_number(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }

    fn of_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
}

impl Number for Duration {
    fn to_number(self) -> u64 {
        milliseconds(self)
    }

    fn of_number(number: u64) -> Self {
        Self::from_millis(number)
    }
}

macro_rules! settings {
    ($($name:ident: $unit:ident, $min:expr, $max:expr;)*) => {
        /// In the order of the documentation.
        const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            range: Range { unit: Unit::$unit, min: $min as u64, max: $max as u64 },
            get: |limits| limits.$name.to_number(),
            set: |limits, number| limits.$name = Number::of_number(number),
        }),*];
    };
}

settings! {
    // More descriptors than systems grant one process.
    max_connections: Count, 1, 1_000_000;
    max_connections_per_address: Count, 1, 1_000_000;
    // Each dashboard is a thread, and systems stop somewhat above this.
    max_dashboards: Count, 1, 100_000;
    max_dashboards_per_address: Count, 1, 100_000;
    max_agents_per_pool: Count, 1, 1_000_000;
    // One heartbeat of max_body_bytes at least.
    max_pool_bytes: Bytes, 64 * KIB, 64 * KIB * MIB;
    // With less, the pipes' own buffers would be all of it, and one request might not fit.
    max_buffered_bytes: Bytes, MIB, 64 * KIB * MIB;
    // With less, a healthy client on a busy network would be cut off; more than a day limits nothing.
    lag_timeout: Milliseconds, 100, 24 * 60 * 60 * 1_000;
    lag_min_bytes: Bytes, 1, 16 * MIB;
}

/// Names of the first release that cannot be set any more, and what holds instead.
const REMOVED: [(&str, &str); 11] = [
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

/// The defaults, changed where the table `[limits]` says so.
pub(super) fn read_limits(table: Option<&Table<'_>>) -> Limits {
    let mut limits = Limits::default();
    let Some(table) = table else { return limits };
    let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    table.allow_only(&names, &REMOVED);
    for setting in SETTINGS {
        let number = table.get(setting.name).and_then(|value| setting.range.read(&value));
        if let Some(number) = number {
            (setting.set)(&mut limits, number);
        }
    }
    limits
}

/// Name, value and default of each limit that can be set.
pub(crate) fn settable_limits(
    limits: &Limits,
) -> impl Iterator<Item = (&'static str, String, String)> {
    let defaults = Limits::default();
    SETTINGS.iter().map(move |Setting { name, range, get, .. }| {
        (*name, range.unit.show(get(limits)), range.unit.show(get(&defaults)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unit: Unit, text: &str) -> Option<u64> {
        unit.read(&DeValue::String(text.into()))
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (shown, bytes) in [
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            (" 1 MiB ", 1_048_576),
            ("2GiB", 2_147_483_648),
            ("0 B", 0),
        ] {
            assert_eq!(text(Unit::Bytes, shown), Some(bytes), "{shown:?}");
        }
        for bad in ["", "64", "64 KB", "64 kib", "1.5 MiB", "+1 KiB", "-1 KiB", "KiB", "1 KiB x"] {
            assert_eq!(text(Unit::Bytes, bad), None, "{bad:?}");
        }
        assert_eq!(text(Unit::Bytes, "99999999999999999999 B"), None);
        assert_eq!(text(Unit::Bytes, "18446744073709551615 GiB"), None);
    }

    #[test]
    fn what_is_shown_parses_to_the_same_number() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1, "1 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (3 * 1_024 * 1_024, "3 MiB"),
        ] {
            assert_eq!(Unit::Bytes.show(bytes), shown);
            assert_eq!(text(Unit::Bytes, shown), Some(bytes));
        }
        assert_eq!(Unit::Milliseconds.show(300_000), "5m");
        assert_eq!(text(Unit::Milliseconds, "5m"), Some(300_000));
    }

    #[test]
    fn a_time_has_a_unit_and_a_count_has_none() {
        assert_eq!(text(Unit::Milliseconds, "5"), None);
        assert_eq!(text(Unit::Milliseconds, "1m 30s"), Some(90_000));
        assert_eq!(text(Unit::Count, "5"), None);
    }

    #[test]
    fn numbers_may_have_any_base_that_toml_has_and_no_minus() {
        let number = |unit: Unit, text: &str| {
            let file = format!("n = {text}");
            let root = toml::de::DeTable::parse(&file).unwrap();
            unit.read(root.get_ref().get("n").unwrap().get_ref())
        };
        for unit in [Unit::Count, Unit::Bytes] {
            assert_eq!(number(unit, "8_192"), Some(8_192));
            assert_eq!(number(unit, "0x10"), Some(16));
            assert_eq!(number(unit, "99999999999999999999"), Some(u64::MAX));
            for bad in ["-1", "-99999999999999999999", "1.5", "true"] {
                assert_eq!(number(unit, bad), None, "{bad}");
            }
        }
        assert_eq!(number(Unit::Milliseconds, "5"), None);
    }

    #[test]
    fn errors_state_the_values_of_limits_that_cannot_be_set() {
        let Limits {
            max_head_bytes,
            max_headers,
            max_body_bytes,
            head_timeout,
            body_timeout,
            idle_timeout,
            worker_timeout,
            max_in_flight,
            max_tasks_per_heartbeat,
            ..
        } = Limits::default();
        assert_eq!((max_head_bytes, max_headers, max_body_bytes), (8 * KIB, 64, 64 * KIB));
        let times = [head_timeout, body_timeout, idle_timeout, worker_timeout];
        assert_eq!(times.map(|time| time.as_secs()), [10, 10, 75, 5]);
        assert_eq!((max_in_flight, max_tasks_per_heartbeat), (1_024, 256));
    }

    #[test]
    fn the_least_budget_holds_one_request_and_the_least_pool_one_heartbeat() {
        let limits = Limits::default();
        let least = |name| SETTINGS.iter().find(|it| it.name == name).unwrap().range.min;
        let request = limits.max_head_bytes + limits.max_body_bytes;
        assert!(least("max_buffered_bytes") >= request as u64);
        assert!(least("max_pool_bytes") >= limits.max_body_bytes as u64);
    }
}

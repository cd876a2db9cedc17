//! The settings that are numbers with a unit: `evict_after`, and the table `[limits]`. Says which
//! values they may take; the defaults and their reasons stand at [`Limits`].

use std::time::Duration;

use toml::de::DeValue;

use super::source::Value;
use crate::server::limits::Limits;
use crate::wire::{KIB, MIB};

/// A setting, and where its value goes. Times are numbers of milliseconds.
pub(super) struct Setting<'a> {
    name: &'static str,
    field: Field<'a>,
    min: u64,
    max: u64,
}

enum Field<'a> {
    Count(&'a mut usize),
    Bytes(&'a mut usize),
    Time(&'a mut Duration),
}

impl Setting<'_> {
    /// Takes the value that `table` gives, if it gives one. Reports one that is a mistake.
    pub(super) fn read(&mut self, table: &Value<'_>) {
        let Some(value) = table.get(self.name) else { return };
        if let Err(why) = self.parse(value.value).and_then(|number| self.set(number)) {
            value.refuse(why);
        }
    }

    fn parse(&self, value: &DeValue<'_>) -> Result<u64, String> {
        let (number, rule) = match self.field {
            Field::Count(_) => (read_integer(value), "a whole number"),
            Field::Bytes(_) => (
                read_integer(value).or_else(|| read_size(value.as_str()?.trim())),
                "a whole number of bytes, or a text such as \"64 KiB\" (B, KiB, MiB, GiB)",
            ),
            Field::Time(_) => {
                let time = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
                (time.map(milliseconds), "a text with a unit, such as \"10s\" or \"5m\"")
            }
        };
        number.ok_or_else(|| format!("must be {rule}"))
    }

    pub(super) fn set(&mut self, number: u64) -> Result<(), String> {
        if !(self.min..=self.max).contains(&number) {
            let [given, min, max] = [number, self.min, self.max].map(|number| self.show(number));
            return Err(format!("{given} is out of range, {min} to {max} is allowed"));
        }
        match &mut self.field {
            Field::Count(field) | Field::Bytes(field) => {
                **field = usize::try_from(number).unwrap_or(usize::MAX);
            }
            Field::Time(field) => **field = Duration::from_millis(number),
        }
        Ok(())
    }

    fn show(&self, number: u64) -> String {
        match self.field {
            Field::Count(_) => number.to_string(),
            Field::Bytes(_) => show_size(number),
            Field::Time(_) => humantime::format_duration(Duration::from_millis(number)).to_string(),
        }
    }

    fn show_value(&self) -> String {
        match &self.field {
            Field::Count(field) | Field::Bytes(field) => self.show(**field as u64),
            Field::Time(field) => self.show(milliseconds(**field)),
        }
    }
}

fn read_integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    // A number that is too large for the type is out of every range, as the largest is.
    let read = u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(u64::MAX);
    (!number.as_str().starts_with('-')).then_some(read)
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1_024 * MIB as u64), ("MiB", MIB as u64), ("KiB", KIB as u64), ("B", 1)];

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

/// At least 100 ms: the eviction tick is a quarter of it, and a faster one would only burn CPU. At
/// most 30 days: an agent that is silent for a month is not coming back.
pub(super) fn evict_after(field: &mut Duration) -> Setting<'_> {
    let max = 30 * 24 * 60 * 60 * 1_000;
    Setting { name: "evict_after", field: Field::Time(field), min: 100, max }
}

/// The limits that the file may set, in the order of the documentation.
fn settings(limits: &mut Limits) -> [Setting<'_>; 11] {
    let count = |name, field, max| Setting { name, field: Field::Count(field), min: 1, max };
    let bytes = |name, field, min: usize, max: usize| Setting {
        name,
        field: Field::Bytes(field),
        min: min as u64,
        max: max as u64,
    };
    let time = |name, field, min, max| Setting { name, field: Field::Time(field), min, max };
    [
        // More descriptors than systems grant one process.
        count("max_connections", &mut limits.max_connections, 1_000_000),
        count("max_connections_per_address", &mut limits.max_connections_per_address, 1_000_000),
        // Each dashboard is a thread, and systems stop somewhat above this.
        count("max_dashboards", &mut limits.max_dashboards, 100_000),
        count("max_dashboards_per_address", &mut limits.max_dashboards_per_address, 100_000),
        count("max_agents_per_pool", &mut limits.max_agents_per_pool, 1_000_000),
        // One heartbeat of MAX_BODY_BYTES at least.
        bytes("max_pool_bytes", &mut limits.max_pool_bytes, 64 * KIB, 64 * KIB * MIB),
        // A million a second is more than the server can take, or tell of.
        count(
            "max_agent_heartbeats_per_second",
            &mut limits.max_agent_heartbeats_per_second,
            1_000_000,
        ),
        count("max_agent_updates_per_second", &mut limits.max_agent_updates_per_second, 1_000_000),
        // With less, one request might not fit.
        bytes("max_buffered_bytes", &mut limits.max_buffered_bytes, MIB, 64 * KIB * MIB),
        // With less, a healthy client on a busy network would be cut off; more than a day limits
        // nothing.
        time("lag_timeout", &mut limits.lag_timeout, 100, 24 * 60 * 60 * 1_000),
        bytes("lag_min_bytes", &mut limits.lag_min_bytes, 1, 16 * MIB),
    ]
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
pub(super) fn read_limits(root: &Value<'_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(table) = root.table("limits") {
        let settings = settings(&mut limits);
        table.allow_only(&settings.each_ref().map(|setting| setting.name), &REMOVED);
        settings.into_iter().for_each(|mut setting| setting.read(&table));
    }
    limits
}

/// Name and value of each limit that the file may set.
pub(crate) fn settable_limits(limits: &Limits) -> [(&'static str, String); 11] {
    settings(&mut limits.clone()).map(|setting| (setting.name, setting.show_value()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::{MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADERS};
    use crate::wire::MAX_TASKS;

    /// The number that the setting's file reads as, where it is one.
    fn count(value: &str) -> Option<u64> {
        parse(Field::Count(&mut 0), value)
    }

    fn bytes(value: &str) -> Option<u64> {
        parse(Field::Bytes(&mut 0), value)
    }

    fn time(value: &str) -> Option<u64> {
        parse(Field::Time(&mut Duration::default()), value)
    }

    fn parse(field: Field<'_>, value: &str) -> Option<u64> {
        let file = format!("n = {value}");
        let root = toml::de::DeTable::parse(&file).unwrap();
        let setting = Setting { name: "n", field, min: 0, max: 0 };
        setting.parse(root.get_ref().get("n").unwrap().get_ref()).ok()
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (shown, number) in [
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            (" 1 MiB ", 1_048_576),
            ("2GiB", 2_147_483_648),
            ("0 B", 0),
        ] {
            assert_eq!(bytes(&format!("'{shown}'")), Some(number), "{shown:?}");
        }
        for bad in ["", "64", "64 KB", "64 kib", "1.5 MiB", "+1 KiB", "-1 KiB", "KiB", "1 KiB x"] {
            assert_eq!(bytes(&format!("'{bad}'")), None, "{bad:?}");
        }
        assert_eq!(bytes("'99999999999999999999 B'"), None);
        assert_eq!(bytes("'18446744073709551615 GiB'"), None);
    }

    #[test]
    fn what_is_shown_parses_to_the_same_number() {
        for (number, shown) in [
            (0, "0 B"),
            (1, "1 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (3 * 1_024 * 1_024, "3 MiB"),
        ] {
            assert_eq!(show_size(number), shown);
            assert_eq!(bytes(&format!("'{shown}'")), Some(number));
        }
        assert_eq!(evict_after(&mut Duration::from_secs(300)).show_value(), "5m");
        assert_eq!(time("'5m'"), Some(300_000));
    }

    #[test]
    fn a_time_has_a_unit_and_a_count_has_none() {
        assert_eq!(time("'5'"), None);
        assert_eq!(time("'1m 30s'"), Some(90_000));
        assert_eq!(count("'5'"), None);
    }

    #[test]
    fn numbers_may_have_any_base_that_toml_has_and_no_minus() {
        for number in [count, bytes] {
            assert_eq!(number("8_192"), Some(8_192));
            assert_eq!(number("0x10"), Some(16));
            assert_eq!(number("99999999999999999999"), Some(u64::MAX));
            for bad in ["-1", "-99999999999999999999", "1.5", "true"] {
                assert_eq!(number(bad), None, "{bad}");
            }
        }
        assert_eq!(time("5"), None);
    }

    #[test]
    fn errors_state_the_values_of_limits_that_cannot_be_set() {
        let Limits {
            head_timeout, body_timeout, idle_timeout, worker_timeout, max_in_flight, ..
        } = Limits::default();
        assert_eq!((MAX_HEAD_BYTES, MAX_HEADERS, MAX_BODY_BYTES), (8 * KIB, 64, 64 * KIB));
        let times = [head_timeout, body_timeout, idle_timeout, worker_timeout];
        assert_eq!(times.map(|time| time.as_secs()), [10, 10, 75, 5]);
        assert_eq!((max_in_flight, MAX_TASKS), (1_024, 256));
    }

    #[test]
    fn the_least_budget_holds_one_request_and_the_least_pool_one_heartbeat() {
        let limits = Limits::default();
        let settings = settings(&mut limits.clone()).map(|it| (it.name, it.min));
        let least = |name| settings.iter().find(|(own, _)| *own == name).unwrap().1;
        let request = MAX_HEAD_BYTES + MAX_BODY_BYTES;
        assert!(least("max_buffered_bytes") >= request as u64);
        assert!(least("max_pool_bytes") >= MAX_BODY_BYTES as u64);
    }
}

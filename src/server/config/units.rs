//! Sizes, counts and times as people write them in the file, and back. Parses; knows no limit.

use std::time::Duration;

use toml::de::DeValue;

use crate::wire::{KIB, MIB};

/// A value of the file that is a number or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Integer(i64),
    Text(String),
}

impl Scalar {
    /// None of any other type.
    pub(super) fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            // One too large for the type is out of every range, as the largest is.
            DeValue::Integer(number) => Some(Self::Integer(
                i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX),
            )),
            DeValue::String(text) => Some(Self::Text(text.clone().into_owned())),
            _ => None,
        }
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::Integer(0)
    }
}

/// How values of one kind are read and shown.
pub(super) struct Unit<T> {
    pub(super) read: fn(&Scalar) -> Option<T>,
    pub(super) show: fn(T) -> String,
    /// What is allowed, for an error.
    pub(super) rule: &'static str,
}

/// Bytes.
pub(super) const SIZE: Unit<usize> = Unit {
    read: read_size,
    show: show_size,
    rule: "a whole number of bytes, or a text such as \"64 KiB\" (B, KiB, MiB, GiB)",
};

/// How many.
pub(super) const COUNT: Unit<usize> =
    Unit { read: read_count, show: show_count, rule: "a whole number" };

/// How long.
pub(super) const TIME: Unit<Duration> = Unit {
    read: read_time,
    show: show_time,
    rule: "a text with a unit, such as \"10s\" or \"5m\"",
};

const SIZE_UNITS: [(&str, usize); 4] = [("GiB", 1_024 * MIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

fn read_size(value: &Scalar) -> Option<usize> {
    let text = match value {
        Scalar::Integer(bytes) => return usize::try_from(*bytes).ok(),
        Scalar::Text(text) => text.trim(),
    };
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let (_, factor) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let digits = digits.trim_end();
    // `parse` takes a plus sign, and a size has none.
    let number: usize =
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(factor)
}

/// In the largest unit that leaves a whole number.
fn show_size(bytes: usize) -> String {
    let whole = |(_, factor): &(&str, usize)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let (unit, factor) = SIZE_UNITS.into_iter().find(whole).unwrap_or(("B", 1));
    format!("{} {unit}", bytes / factor)
}

fn read_count(value: &Scalar) -> Option<usize> {
    match value {
        Scalar::Integer(number) => usize::try_from(*number).ok(),
        Scalar::Text(_) => None,
    }
}

fn show_count(count: usize) -> String {
    count.to_string()
}

fn read_time(value: &Scalar) -> Option<Duration> {
    match value {
        Scalar::Integer(_) => None,
        Scalar::Text(text) => humantime::parse_duration(text).ok(),
    }
}

fn show_time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<usize> {
        (SIZE.read)(&Scalar::Text(text.to_owned()))
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        assert_eq!((SIZE.read)(&Scalar::Integer(8_192)), Some(8_192));
        assert_eq!((SIZE.read)(&Scalar::Integer(-1)), None);
        for (text, bytes) in [
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            (" 1 MiB ", 1_048_576),
            ("2GiB", 2_147_483_648),
            ("0 B", 0),
        ] {
            assert_eq!(size(text), Some(bytes), "{text:?}");
        }
        for bad in ["", "64", "64 KB", "64 kib", "1.5 MiB", "+1 KiB", "-1 KiB", "KiB", "1 KiB x"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
        assert_eq!(size("99999999999999999999 B"), None);
        assert_eq!(size("18446744073709551615 GiB"), None);
    }

    #[test]
    fn what_is_shown_reads_as_what_it_was() {
        for (bytes, shown) in
            [(0, "0 B"), (1, "1 B"), (1_023, "1023 B"), (KIB, "1 KiB"), (3 * MIB, "3 MiB")]
        {
            assert_eq!((SIZE.show)(bytes), shown);
            assert_eq!(size(shown), Some(bytes));
        }
        let five = Duration::from_secs(300);
        assert_eq!((TIME.show)(five), "5m");
        assert_eq!((TIME.read)(&Scalar::Text("5m".into())), Some(five));
    }

    #[test]
    fn a_time_has_a_unit_and_a_count_has_none() {
        assert_eq!((TIME.read)(&Scalar::Integer(5)), None);
        assert_eq!((TIME.read)(&Scalar::Text("5".into())), None);
        assert_eq!((TIME.read)(&Scalar::Text("1m 30s".into())), Some(Duration::from_secs(90)));
        assert_eq!((COUNT.read)(&Scalar::Text("5".into())), None);
        assert_eq!((COUNT.read)(&Scalar::Integer(5)), Some(5));
    }
}

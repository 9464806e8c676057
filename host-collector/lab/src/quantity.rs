//! Sizes and durations as people write them in plans and on the command line: `4KiB`, `30s`.

use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;
use thiserror::Error;
use vslice_spec::duration::{self, DurationError};

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a size.
    #[error("'{0}' is not a size: write a whole number with B, KiB, MiB, GiB or TiB, such as 4KiB")]
    Size(String),
    /// Not a duration.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// A duration that is not of whole milliseconds.
    #[error("'{0}' is finer than a millisecond")]
    TooFine(String),
    /// A duration that is not of whole microseconds.
    #[error("'{0}' is finer than a microsecond")]
    FarTooFine(String),
}

/// The units of a size, largest first, each with its bytes.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))?;
    let digits = digits.trim_end();
    // `u64::from_str` would accept a leading plus sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a size such as `4KiB`, in bytes.
///
/// # Errors
/// [`QuantityError::Size`] if the text is anything else, or does not fit in 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    parse(text, &SIZE_UNITS).ok_or_else(|| QuantityError::Size(text.to_owned()))
}

/// Reads a duration such as `30s`, in milliseconds: see [`duration::FORMS`].
///
/// # Errors
/// [`QuantityError::Duration`] if the text is anything else, [`QuantityError::TooFine`] if it is not of
/// whole milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, QuantityError> {
    let length = duration::parse(text)?;
    let ms = u64::try_from(length.as_millis()).ok();
    ms.filter(|ms| Duration::from_millis(*ms) == length)
        .ok_or_else(|| QuantityError::TooFine(text.to_owned()))
}

/// Reads a duration such as `5ms` or `500us`, in microseconds: see [`duration::FORMS`].
///
/// # Errors
/// [`QuantityError::Duration`] if the text is anything else, [`QuantityError::FarTooFine`] if it is not of
/// whole microseconds.
pub fn parse_duration_us(text: &str) -> Result<u64, QuantityError> {
    let length = duration::parse(text)?;
    let us = u64::try_from(length.as_micros()).ok();
    us.filter(|us| Duration::from_micros(*us) == length)
        .ok_or_else(|| QuantityError::FarTooFine(text.to_owned()))
}

/// Writes a size in the largest unit that leaves a whole number.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Writes a duration in seconds where that is a whole number, else in milliseconds.
#[must_use]
pub fn format_duration_ms(duration_ms: u64) -> String {
    if duration_ms.is_multiple_of(1_000) {
        format!("{}s", duration_ms / 1_000)
    } else {
        format!("{duration_ms}ms")
    }
}

/// For `#[serde(with = ...)]`: a number of bytes, written as a size.
pub mod bytes_text {
    use super::*;

    /// Writes the size as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_bytes(*bytes))
    }

    /// Reads the size from text.
    ///
    /// # Errors
    /// If the value is no text, or not that of a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_bytes(&text).map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(with = ...)]`: milliseconds, written as a duration.
pub mod duration_text {
    use super::*;
    use serde::de::Error;

    /// A text, or a number, which is one of seconds.
    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "a duration: {}", duration::FORMS)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse_duration_ms(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
            self.visit_str(&number.to_string())
        }
    }

    /// Writes the duration as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration_ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration_ms(*duration_ms))
    }

    /// Reads the duration from text.
    ///
    /// # Errors
    /// If the value is no text, or not that of a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

/// For `#[serde(with = ...)]`: milliseconds that may be absent, written as a duration.
pub mod duration_text_option {
    use super::*;

    /// Writes the duration as text, if there is one.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        duration_ms: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration_ms {
            Some(duration_ms) => serializer.serialize_some(&format_duration_ms(*duration_ms)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the duration from text; a field that uses this needs `default` too.
    ///
    /// # Errors
    /// If the value is no text, or not that of a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        duration_text::deserialize(deserializer).map(Some)
    }
}

/// For `#[serde(with = ...)]`: microseconds, written as a duration.
pub mod fine_duration_text {
    use super::*;

    /// Writes the duration as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration_us: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match (duration_us / 1_000, duration_us % 1_000) {
            (duration_ms, 0) => serializer.serialize_str(&format_duration_ms(duration_ms)),
            _ => serializer.serialize_str(&format!("{duration_us}us")),
        }
    }

    /// Reads the duration from text.
    ///
    /// # Errors
    /// If the value is no text, or not that of a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration_us(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_that_people_write() {
        assert_eq!(parse_bytes("4KiB"), Ok(4096));
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("512B"), Ok(512));
        assert_eq!(parse_duration_ms("30s"), Ok(30_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        assert_eq!(parse_duration_ms("2min"), Ok(120_000));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "4096", "4kb", "KiB", "-1KiB", "+1KiB", "1.5GiB", "99999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text} was taken for a size");
        }
        for text in ["", "s", "-1s", "0.5ms", "20us", "10d"] {
            assert!(parse_duration_ms(text).is_err(), "{text} was taken for a duration");
        }
        let fine = parse_duration_ms("20us").expect_err("too fine").to_string();
        assert_eq!(fine, "'20us' is finer than a millisecond");
    }

    #[test]
    fn a_plan_takes_a_number_for_seconds() {
        #[derive(Deserialize)]
        struct Plan {
            #[serde(with = "duration_text")]
            lease: u64,
        }
        let lease = |toml: &str| toml::from_str::<Plan>(toml).map(|plan| plan.lease);
        for (toml, ms) in [
            ("lease = 2", 2_000),
            ("lease = 1.5", 1_500),
            ("lease = '1m'", 60_000),
            ("lease = '500ms'", 500),
        ] {
            assert_eq!(lease(toml).ok(), Some(ms), "{toml}");
        }
        for (toml, words) in [
            ("lease = -2", "'-2' is not a duration: write 10, 10s, 1.5s, 500ms, 1m or 2h"),
            ("lease = true", "expected a duration: 10, 10s, 1.5s, 500ms, 1m or 2h"),
        ] {
            let message = lease(toml).expect_err(toml).to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_written_gives_it_back(number: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(number)), Ok(number));
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(number)), Ok(number));
        }
    }
}

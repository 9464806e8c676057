//! Durations as people write them, on command lines and in plans.

use std::time::Duration;

/// How a duration may be written, for help texts and errors.
pub const FORMS: &str = "10, 10s, 1.5s, 500ms, 1m or 2h; a number alone is seconds";

/// What a number stands for that has one of these behind it, in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("", 1_000_000_000),
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits behind the point that are read at most: more than any unit has.
const FRACTION_DIGITS_MAX: usize = 18;

/// That a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write {FORMS}")]
pub struct DurationError(String);

/// Reads a duration such as `10`, `1.5s` or `500ms`, exactly.
///
/// # Errors
/// If the text is anything else, is finer than a nanosecond or longer than [`Duration`] can be.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    read(text).ok_or_else(|| DurationError(text.to_owned()))
}

fn read(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let (_, unit_ns) = UNITS.into_iter().find(|(unit, _)| *unit == &text[number.len()..])?;
    let (whole, fraction) = match number.trim_end().split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number.trim_end(), None),
    };
    let mut ns = u128::from(digits(whole)?) * u128::from(unit_ns);
    if let Some(fraction) = fraction {
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        if fraction.len() > FRACTION_DIGITS_MAX {
            return None;
        }
        let scaled = u128::from(digits(fraction)?) * u128::from(unit_ns);
        ns = ns.checked_add(scaled.is_multiple_of(scale).then(|| scaled / scale)?)?;
    }
    let seconds = u64::try_from(ns / 1_000_000_000).ok()?;
    let rest_ns = u32::try_from(ns % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest_ns))
}

/// `u64::from_str` would accept a leading plus sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("10", 10_000),
            ("1.5", 1_500),
            ("10s", 10_000),
            ("10 s", 10_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("1m", 60_000),
            ("2min", 120_000),
            ("0.5m", 30_000),
            ("2h", 7_200_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("20us"), Ok(Duration::from_micros(20)));
        assert_eq!(parse("1.000000001s"), Ok(Duration::new(1, 1)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_forms() {
        let texts = [
            "",
            "s",
            "-1s",
            "+1s",
            "1,5s",
            "1.s",
            ".5s",
            "1.5.s",
            "soon",
            "10S",
            "1d",
            "1e3",
            "0.5ns",
            "1..5",
            "10s ",
            " 10s",
            "99999999999999999999",
            "18446744073709551615h",
        ];
        for text in texts {
            let message = parse(text).expect_err(text).to_string();
            assert_eq!(
                message,
                format!(
                    "'{text}' is not a duration: write 10, 10s, 1.5s, 500ms, 1m or 2h; a number alone \
                     is seconds"
                )
            );
        }
    }

    proptest! {
        #[test]
        fn a_decimal_fraction_is_exact(seconds in 0..1_000_000_u64, ms in 0..1_000_u64) {
            let expected = Duration::from_millis(seconds * 1_000 + ms);
            prop_assert_eq!(parse(&format!("{seconds}.{ms:03}")), Ok(expected));
            prop_assert_eq!(parse(&format!("{}ms", seconds * 1_000 + ms)), Ok(expected));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(&text);
        }
    }
}

//! Numbers as people read them: one form for the agent and the reports.

const DURATIONS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
const BYTES: [(&str, f64); 5] = [("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];

/// A length of time to three digits: `812 ns`, `3.99 ms`, `41.0 s`.
#[must_use]
pub fn duration(length_ns: u64) -> String {
    scaled(length_ns, &DURATIONS)
}

/// The same of a length that there may not be.
#[must_use]
pub fn known_duration(length_ns: Option<u64>) -> String {
    length_ns.map_or_else(|| "-".to_owned(), duration)
}

/// An amount of data to three digits, in powers of 1000: `50.6 MB`.
#[must_use]
pub fn bytes(amount_bytes: u64) -> String {
    scaled(amount_bytes, &BYTES)
}

/// A whole number with a comma between groups of three digits.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many things: `1 request`, `2,000 requests`.
#[must_use]
pub fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A share in [0, 1] to a tenth of a percent. What is not nothing never reads as nothing, and what
/// is not all never reads as all.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.1} %", share * 100.0);
    match text.as_str() {
        "0.0 %" if share > 0.0 => "<0.1 %".to_owned(),
        "100.0 %" if share < 1.0 => ">99.9 %".to_owned(),
        _ => text,
    }
}

/// A share to a whole percent, for sentences.
#[must_use]
pub fn whole_percent(share: f64) -> String {
    let text = format!("{:.0} %", share * 100.0);
    match text.as_str() {
        "0 %" if share > 0.0 => "less than 1 %".to_owned(),
        "100 %" if share < 1.0 => "more than 99 %".to_owned(),
        _ => text,
    }
}

fn scaled(value: u64, units: &[(&str, f64)]) -> String {
    let (mut unit, mut size) = units[0];
    for (larger_unit, larger_size) in &units[1..] {
        // 999.5 of a unit would be printed as 1000 of it.
        if (value as f64) < 999.5 * size {
            break;
        }
        (unit, size) = (*larger_unit, *larger_size);
    }
    let scaled = value as f64 / size;
    let decimals = if size <= 1.0 || scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_the_fitting_unit() {
        for (length_ns, text) in [
            (0, "0 ns"),
            (7, "7 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (9_994, "9.99 us"),
            (9_996, "10.0 us"),
            (99_960, "100 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (6_020_000, "6.02 ms"),
            (41_000_000_000, "41.0 s"),
            (5_400_000_000_000, "5400 s"),
        ] {
            assert_eq!(duration(length_ns), text, "{length_ns}");
        }
    }

    #[test]
    fn other_numbers() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(50_561_024), "50.6 MB");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(2_097_152), "2,097,152");
        assert_eq!(counted(0, "request"), "0 requests");
        assert_eq!(counted(1, "request"), "1 request");
    }

    #[test]
    fn a_percentage_never_rounds_to_nothing_or_to_all() {
        for (share, text, whole) in [
            (0.0, "0.0 %", "0 %"),
            (0.0001, "<0.1 %", "less than 1 %"),
            (0.314, "31.4 %", "31 %"),
            (0.9996, ">99.9 %", "more than 99 %"),
            (1.0, "100.0 %", "100 %"),
        ] {
            assert_eq!((percent(share).as_str(), whole_percent(share).as_str()), (text, whole));
        }
    }
}

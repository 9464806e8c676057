//! Numbers as people read them, as the collector's reports print them.

const DURATIONS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];

/// A length of time to three digits: `812 ns`, `3.99 ms`, `41.0 s`.
pub(super) fn duration(length_ns: u64) -> String {
    let value = length_ns as f64;
    // 999.5 of a unit would be printed as 1000 of it.
    let fits = |(_, size): &&(&str, f64)| *size <= 1.0 || value >= 0.9995 * size;
    let (unit, size) = DURATIONS.iter().rfind(fits).copied().unwrap_or(DURATIONS[0]);
    let scaled = value / size;
    let decimals = if size <= 1.0 || scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$} {unit}")
}

/// A whole number with a comma between groups of three digits.
pub(super) fn count(number: u64) -> String {
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

/// A share in [0, 1] to a tenth of a percent. What is not nothing never reads as nothing, and what
/// is not all never reads as all.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1} %", share * 100.0);
    match text.as_str() {
        "0.0 %" if share > 0.0 => "<0.1 %".to_owned(),
        "100.0 %" if share < 1.0 => ">99.9 %".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_the_fitting_unit() {
        for (length_ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (9_996, "10.0 us"),
            (99_960, "100 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (41_000_000_000, "41.0 s"),
            (5_400_000_000_000, "5400 s"),
        ] {
            assert_eq!(duration(length_ns), text, "{length_ns}");
        }
    }

    #[test]
    fn other_numbers() {
        assert_eq!(count(999), "999");
        assert_eq!(count(2_097_152), "2,097,152");
        assert_eq!(percent(0.0), "0.0 %");
        assert_eq!(percent(0.0001), "<0.1 %");
        assert_eq!(percent(0.9996), ">99.9 %");
        assert_eq!(percent(1.0), "100.0 %");
    }
}

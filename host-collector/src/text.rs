//! What may be shown of a text that somebody else has chosen.

/// The text without anything that a terminal could obey or that could reorder a line: control
/// characters, format characters (bidirectional overrides, zero-width ones) and whatever else is
/// not a letter, a digit or a sign of ASCII become `?`, one for one.
///
/// Texts of a guest go through it as they arrive, because they are shown in many places: JSON, for
/// one, escapes U+001B but not U+009B, which many a terminal takes for the same.
#[must_use]
pub fn harmless(text: &str) -> String {
    let is_harmless = |letter: char| {
        letter == ' '
            || letter.is_ascii_graphic()
            || (!letter.is_ascii() && letter.is_alphanumeric())
    };
    text.chars().map(|letter| if is_harmless(letter) { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_out() {
        for (raw, cleaned) in [
            ("worker", "worker"),
            ("a\x1b[2Jb", "a?[2Jb"),
            ("a\nb\rc\td\x07", "a?b?c?d?"),
            ("\u{9b}31m", "?31m"),
            ("\u{202e}evil\u{200b}", "?evil?"),
            ("gr\u{fc}n", "gr\u{fc}n"),
        ] {
            assert_eq!(harmless(raw), cleaned);
        }
    }
}

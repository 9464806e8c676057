//! What may be shown of untrusted text, and how much room it takes.

use std::error::Error;
use unicode_width::UnicodeWidthChar;

/// Which characters the reader's terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Letters {
    /// All of Unicode, as UTF-8.
    #[default]
    Unicode,
    /// ASCII alone: the locale has another encoding, in which UTF-8 reads as rubbish.
    Ascii,
}

impl Letters {
    /// The text as it may be printed: [`harmless`], with a `?` for each letter that cannot be shown.
    #[must_use]
    pub fn show(self, text: &str) -> String {
        let text = harmless(text);
        match self {
            Letters::Unicode => text,
            Letters::Ascii => ascii(&text),
        }
    }
}

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

/// The text with a `?` for whatever is not ASCII; its lines stay.
#[must_use]
pub fn ascii(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii() { letter } else { '?' }).collect()
}

/// The columns of a terminal that a letter takes: two for most of East Asia's, none for those that are
/// put on the one before.
#[must_use]
pub fn letter_columns(letter: char) -> usize {
    // A control character, which has no width, is shown as a `?`.
    letter.width().unwrap_or(1)
}

/// The columns of a terminal that a [`harmless`] text takes.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().map(letter_columns).sum()
}

/// An error with its causes in one line. A message that already includes its source's is not repeated.
#[must_use]
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
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

    #[test]
    fn a_locale_without_utf8_is_shown_ascii_alone() {
        assert_eq!(Letters::Ascii.show("gr\u{fc}n \u{6771}\x07"), "gr?n ??");
        assert_eq!(Letters::Unicode.show("gr\u{fc}n \u{6771}\x07"), "gr\u{fc}n \u{6771}?");
        assert_eq!(ascii("\u{fc}\n\u{fc}"), "?\n?");
    }

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!(columns("vm1"), 3);
        assert_eq!(columns("\u{6771}\u{4eac}"), 4);
    }
}

//! A page of text. Everything that is printed passes through [`Page`], which lets no control
//! character out: names come from guests and from `comm`s, and a terminal obeys what it is sent.

use super::Style;
pub use super::table::Table;
use vslice_core::text::{columns, harmless, letter_columns};

/// How a piece of text stands out, where colour was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// What is looked for first.
    Strong,
    /// What is secondary.
    Dim,
    /// What must not be overlooked.
    Alarm,
}

impl Tone {
    /// "Select graphic rendition" of ECMA-48, 8.3.117.
    fn escape(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Strong => "\x1b[1m",
            Tone::Dim => "\x1b[2m",
            Tone::Alarm => "\x1b[1;31m",
        }
    }
}

/// Characters of one paragraph at most.
const PARAGRAPH_CHARS_MAX: usize = 1000;

/// How far text is indented below a lead that leaves it no room beside it.
const BELOW_LEAD: &str = "    ";

/// A page under construction.
#[derive(Debug)]
pub struct Page {
    text: String,
    lines_count: usize,
    style: Style,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Page { text: String::new(), lines_count: 0, style }
    }

    /// Lines so far.
    pub fn lines_count(&self) -> usize {
        self.lines_count
    }

    /// What is on it.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// Appends another page of the same style.
    pub fn append(&mut self, other: Page) {
        self.text.push_str(&other.text);
        self.lines_count += other.lines_count;
    }

    /// Appends what `fill` makes of as many of `most` things as fit in `lines_max` lines; nothing if not even
    /// one of them fits.
    pub fn fitting(&mut self, lines_max: usize, most: usize, fill: impl Fn(&mut Page, usize)) {
        for things in (1..=most).rev() {
            let mut page = Page::new(self.style);
            fill(&mut page, things);
            if page.lines_count <= lines_max {
                return self.append(page);
            }
        }
    }

    /// A text as the page will show it.
    pub(super) fn shown(&self, text: &str) -> String {
        self.style.letters.show(text)
    }

    /// An empty line.
    pub fn blank(&mut self) {
        self.end_line();
    }

    fn end_line(&mut self) {
        self.text.push('\n');
        self.lines_count += 1;
    }

    /// One line, without trailing blanks.
    pub fn line(&mut self, pieces: &[(Tone, &str)]) {
        let cleaned: Vec<(Tone, String)> =
            pieces.iter().map(|(tone, text)| (*tone, self.shown(text))).collect();
        let printed = cleaned.iter().rposition(|(_, text)| !text.trim_end().is_empty());
        for (index, (tone, text)) in cleaned.iter().enumerate().take(printed.map_or(0, |at| at + 1))
        {
            let text = if Some(index) == printed { text.trim_end() } else { text };
            if self.style.colour && *tone != Tone::Plain {
                self.text.push_str(tone.escape());
                self.text.push_str(text);
                self.text.push_str("\x1b[0m");
            } else {
                self.text.push_str(text);
            }
        }
        self.end_line();
    }

    /// A paragraph, broken to fit the width; its further lines are indented to where the text after
    /// `lead` began, or below a lead that leaves it no room.
    pub fn paragraph(&mut self, lead: &str, text: &str, tone: Tone) {
        self.paragraph_of((Tone::Dim, lead), (tone, text), usize::MAX);
    }

    /// The same in at most `lines_max` lines; the last ends in `~` if there were more.
    pub fn short_paragraph(&mut self, lead: &str, text: &str, tone: Tone, lines_max: usize) {
        self.paragraph_of((Tone::Dim, lead), (tone, text), lines_max);
    }

    /// [`Page::title`] after a blank line.
    pub fn heading(&mut self, title: &str, note: &str) {
        self.blank();
        self.title(title, note);
    }

    /// The title of a section, with a note.
    pub fn title(&mut self, title: &str, note: &str) {
        self.paragraph_of((Tone::Strong, &format!("{title}  ")), (Tone::Dim, note), usize::MAX);
    }

    fn paragraph_of(&mut self, lead: (Tone, &str), (tone, text): (Tone, &str), lines_max: usize) {
        let (lead_tone, mut lead) = lead;
        let text = shorten(&self.shown(text), PARAGRAPH_CHARS_MAX);
        let is_beside = columns(&self.shown(lead)) * 2 <= self.style.width || text.is_empty();
        let indent = if is_beside {
            " ".repeat(columns(&self.shown(lead)))
        } else {
            self.line(&[(lead_tone, lead)]);
            lead = BELOW_LEAD;
            BELOW_LEAD.to_owned()
        };
        let room = self.style.width.saturating_sub(indent.len()).max(1);
        let mut lines = wrap(&text, room);
        if lines.len() > lines_max {
            lines.truncate(lines_max.max(1));
            if let Some(last) = lines.last_mut() {
                last.push_str(" ~");
                *last = shorten(last, room);
            }
        }
        for line in lines {
            self.line(&[(lead_tone, lead), (tone, &line)]);
            lead = &indent;
        }
    }

    /// A table, indented by two. If it is too wide, it first loses its bars, then long texts wrap, then
    /// columns continue below the others.
    pub fn table(&mut self, table: &Table) {
        for line in table.lines(self.style.width, &|text| self.shown(text)) {
            let pieces: Vec<(Tone, &str)> =
                line.iter().map(|(tone, text)| (*tone, text.as_str())).collect();
            self.line(&pieces);
        }
    }
}

/// The part of the text that fits in so many columns; the last is a `~` if there is more.
pub fn shorten(text: &str, columns_max: usize) -> String {
    let text = harmless(text);
    if columns(&text) <= columns_max {
        return text;
    }
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += letter_columns(*letter);
        taken < columns_max
    };
    text.chars().take_while(fits).chain(['~']).collect()
}

/// Lines of at most `room` columns, broken between words unless one is longer; a number stays with its
/// unit.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let bare = word.trim_end_matches(['.', ',', ';', ':', ')']);
        match pieces.last_mut() {
            Some(last) if ["ns", "us", "ms", "s", "%"].contains(&bare) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => pieces.push(word.to_owned()),
        }
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in pieces.iter().flat_map(|piece| broken(piece, room)) {
        let would_be = columns(&line) + 1 + columns(&piece);
        if !line.is_empty() && would_be > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&piece);
    }
    lines.push(line);
    lines
}

/// A word in pieces that fit.
fn broken(word: &str, room: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut taken = 0;
    for letter in word.chars() {
        taken += letter_columns(letter);
        if taken > room {
            pieces.push(String::new());
            taken = letter_columns(letter);
        }
        pieces.last_mut().into_iter().for_each(|piece| piece.push(letter));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_core::text::Letters;

    fn page(style: Style, fill: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(style);
        fill(&mut page);
        page.into_text()
    }

    const NARROW: Style = Style { width: 24, ..Style::PLAIN };

    #[test]
    fn a_paragraph_is_wrapped_under_its_lead() {
        let text = page(NARROW, |page| {
            page.paragraph("note: ", "it took as long as 6.02 ms, which is long", Tone::Plain);
        });
        assert_eq!(text, "note: it took as long as\n      6.02 ms, which is\n      long\n");
    }

    #[test]
    fn text_stands_below_a_lead_that_leaves_it_no_room() {
        let text = page(NARROW, |page| {
            page.paragraph("a lead of nineteen  ", "and some words more", Tone::Plain);
        });
        assert_eq!(text, "a lead of nineteen\n    and some words more\n");
    }

    #[test]
    fn a_short_paragraph_says_that_there_was_more() {
        let text = |lines_max| {
            page(NARROW, |page| {
                page.short_paragraph("a: ", "one two three four five six", Tone::Plain, lines_max);
                assert!(page.lines_count() <= lines_max);
            })
        };
        assert_eq!(text(2), "a: one two three four\n   five six\n");
        assert_eq!(text(1), "a: one two three four ~\n");
    }

    #[test]
    fn a_word_without_end_is_broken_and_wide_letters_count_twice() {
        let text = page(NARROW, |page| page.paragraph("a: ", &"x".repeat(30), Tone::Plain));
        assert_eq!(text, format!("a: {}\n   {}\n", "x".repeat(21), "x".repeat(9)));
        let text = page(NARROW, |page| page.paragraph("", &"\u{6771}".repeat(13), Tone::Plain));
        assert_eq!(text, format!("{}\n\u{6771}\n", "\u{6771}".repeat(12)));
        assert_eq!(shorten(&"\u{6771}".repeat(3), 6), "\u{6771}\u{6771}\u{6771}");
        assert_eq!(shorten(&"\u{6771}".repeat(3), 5), "\u{6771}\u{6771}~");
    }

    #[test]
    fn colour_appears_only_when_asked_for() {
        let fill = |page: &mut Page| page.line(&[(Tone::Strong, "a"), (Tone::Plain, "b")]);
        assert_eq!(page(NARROW, fill), "ab\n");
        assert_eq!(page(Style { colour: true, ..NARROW }, fill), "\x1b[1ma\x1b[0mb\n");
    }

    #[test]
    fn without_unicode_there_is_ascii_alone() {
        let text = page(Style { letters: Letters::Ascii, ..NARROW }, |page| {
            page.line(&[(Tone::Plain, "gr\u{fc}n")]);
            let mut table = Table::new("l r");
            table.row(Tone::Plain, ["\u{6771}", "1"]);
            page.table(&table);
        });
        assert_eq!(text, "gr?n\n  ?  1\n");
    }

    proptest! {
        #[test]
        fn no_text_adds_lines_or_escapes(text in any::<String>()) {
            let printed = page(NARROW, |page| page.line(&[(Tone::Strong, &text)]));
            prop_assert_eq!(printed.matches('\n').count(), 1);
            prop_assert!(!printed.trim_end_matches('\n').contains(char::is_control));
            let wrapped = page(NARROW, |page| page.paragraph("", &text, Tone::Plain));
            prop_assert!(!wrapped.replace('\n', "").contains(char::is_control));
        }

        #[test]
        fn no_paragraph_is_wider_than_the_page(lead in ".{0,40}", text in any::<String>()) {
            // A lead is the caller's own, and shorter than a page.
            let lead = shorten(&lead, 20);
            let printed = page(NARROW, |page| page.paragraph(&lead, &text, Tone::Plain));
            for line in printed.lines() {
                prop_assert!(columns(line) <= NARROW.width, "{:?}", line);
            }
        }
    }
}

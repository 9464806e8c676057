//! A page of text. Everything that is printed passes through [`Page`], which lets no control
//! character out: names come from guests and from `comm`s, and a terminal obeys what it is sent.

use super::Style;
use crate::text::harmless;

/// How a piece of text stands out, where colour was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Dim,
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

/// A page under construction.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    style: Style,
}

impl Page {
    pub(crate) fn new(style: Style) -> Self {
        Page { text: String::new(), style }
    }

    pub(crate) fn width(&self) -> usize {
        self.style.width
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    pub(crate) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// One line; what it ends in of blanks is left out.
    pub(crate) fn line(&mut self, pieces: &[(Tone, &str)]) {
        let cleaned: Vec<(Tone, String)> =
            pieces.iter().map(|(tone, text)| (*tone, harmless(text))).collect();
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
        self.text.push('\n');
    }

    /// A paragraph, broken between words to fit the width; its further lines are indented to where
    /// the text after `lead` began.
    pub(crate) fn paragraph(&mut self, lead: &str, text: &str, tone: Tone) {
        let indent = " ".repeat(lead.chars().count());
        let room = self.style.width.saturating_sub(indent.len()).max(20);
        let mut lead = lead;
        for line in wrap(&shorten(&harmless(text), PARAGRAPH_CHARS_MAX), room) {
            self.line(&[(Tone::Dim, lead), (tone, &line)]);
            lead = &indent;
        }
    }

    /// A table, indented by two.
    pub(crate) fn table(&mut self, table: &Table) {
        let mut widths = vec![0; table.columns.len()];
        for row in &table.rows {
            for (width, (_, cell)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &table.rows {
            let mut pieces: Vec<(Tone, String)> = Vec::new();
            for (index, (tone, cell)) in row.iter().enumerate() {
                let blanks = " ".repeat(widths[index] - cell.chars().count());
                pieces.push((Tone::Plain, "  ".to_owned()));
                if table.columns[index] == Align::Right {
                    pieces.extend([(Tone::Plain, blanks), (*tone, cell.clone())]);
                } else {
                    pieces.extend([(*tone, cell.clone()), (Tone::Plain, blanks)]);
                }
            }
            let pieces: Vec<(Tone, &str)> =
                pieces.iter().map(|(tone, text)| (*tone, text.as_str())).collect();
            self.line(&pieces);
        }
    }
}

/// To which side the cells of a column are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells whose columns line up.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// `columns` has a letter for each column: `l` or `r`.
    pub(crate) fn new(columns: &str) -> Self {
        let align = |letter| if letter == 'l' { Align::Left } else { Align::Right };
        Table { columns: columns.chars().map(align).collect(), rows: Vec::new() }
    }

    pub(crate) fn row<Cell: Into<String>>(
        &mut self,
        tone: Tone,
        cells: impl IntoIterator<Item = Cell>,
    ) {
        let row: Vec<_> = cells.into_iter().map(|cell| (tone, cell.into())).collect();
        debug_assert!(row.len() <= self.columns.len(), "a cell has no column");
        self.rows.push(row);
    }
}

/// The first `chars_max` characters, the last of them a `~` if there are more.
pub(crate) fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['~']).collect()
}

/// Lines of at most `room` characters, unless a word is longer; a number stays with its unit.
fn wrap(text: &str, room: usize) -> Vec<String> {
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
    for piece in pieces {
        let would_be = line.chars().count() + 1 + piece.chars().count();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(style: Style, fill: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(style);
        fill(&mut page);
        page.into_text()
    }

    const PLAIN: Style = Style { width: 24, colour: false };

    #[test]
    fn a_paragraph_is_wrapped_under_its_lead() {
        let text = page(PLAIN, |page| {
            page.paragraph("note: ", "it took as long as 6.02 ms, which is long", Tone::Plain);
        });
        assert_eq!(text, "note: it took as long as\n      6.02 ms, which is\n      long\n");
    }

    #[test]
    fn columns_line_up_and_lines_end_in_no_blanks() {
        let text = page(PLAIN, |page| {
            let mut table = Table::new("lrl");
            table.row(Tone::Plain, ["who", "ran", ""]);
            table.row(Tone::Plain, ["vm2", "12 ms", "##"]);
            page.table(&table);
        });
        assert_eq!(text, "  who    ran\n  vm2  12 ms  ##\n");
    }

    #[test]
    fn colour_appears_only_when_asked_for() {
        let fill = |page: &mut Page| page.line(&[(Tone::Strong, "a"), (Tone::Plain, "b")]);
        assert_eq!(page(PLAIN, fill), "ab\n");
        assert_eq!(page(Style { colour: true, ..PLAIN }, fill), "\x1b[1ma\x1b[0mb\n");
    }

    proptest! {
        #[test]
        fn no_text_adds_lines_or_escapes(text in any::<String>()) {
            let printed = page(PLAIN, |page| page.line(&[(Tone::Strong, &text)]));
            prop_assert_eq!(printed.matches('\n').count(), 1);
            prop_assert!(!printed.trim_end_matches('\n').contains(char::is_control));
            let wrapped = page(PLAIN, |page| page.paragraph("", &text, Tone::Plain));
            prop_assert!(!wrapped.replace('\n', "").contains(char::is_control));
        }
    }
}

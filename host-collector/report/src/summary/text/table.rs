//! Tables that fit. Pure: rows of cells in, lines of pieces out.

use super::page::{Tone, wrap};
use vslice_core::text::columns;

/// How much room a column of text keeps before columns go on below the others.
const TEXT_COLUMNS_MIN: usize = 16;

/// How much room any column keeps, whatever happens.
const COLUMNS_MIN: usize = 4;

/// What stands before each column.
const GAP: usize = 2;

/// To which side the cells of a column are pushed, and what becomes of it where room is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// A text: pushed to the left, and broken over lines.
    Text,
    /// A number: pushed to the right, never cut.
    Number,
    /// A name that somebody may copy: pushed to the left, never cut.
    Name,
    /// A bar: pushed to the left, and left out.
    Bar,
}

/// Rows of cells whose columns line up.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    /// For each column the group that it is in; those of group 0 say what a row is of.
    groups: Vec<usize>,
    rows: Vec<Vec<(Tone, String)>>,
}

/// Columns that stand beside each other, each with its width.
type Block = Vec<(usize, usize)>;

impl Table {
    /// `columns` has a letter for each column: `l` for a text, `n` for a name, `r` for a number, `b` for a
    /// bar. Its
    /// first word says what a row is of, and is there again where the table goes on below; the other
    /// words are kept together.
    pub fn new(columns: &str) -> Self {
        let kind = |letter| match letter {
            'l' => Column::Text,
            'n' => Column::Name,
            'b' => Column::Bar,
            _ => Column::Number,
        };
        let words = columns.split(' ').enumerate();
        let groups: Vec<(usize, char)> = words
            .flat_map(|(group, word)| word.chars().map(move |letter| (group, letter)))
            .collect();
        Table {
            columns: groups.iter().map(|(_, letter)| kind(*letter)).collect(),
            groups: groups.into_iter().map(|(group, _)| group).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<Cell: Into<String>>(&mut self, tone: Tone, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<_> = cells.into_iter().map(|cell| (tone, cell.into())).collect();
        debug_assert!(row.len() <= self.columns.len(), "a cell has no column");
        self.rows.push(row);
    }

    /// The table in lines of at most `width` columns, with each cell as `show` shows it.
    pub(super) fn lines(
        &self,
        width: usize,
        show: &dyn Fn(&str) -> String,
    ) -> Vec<Vec<(Tone, String)>> {
        let shown: Vec<Vec<(Tone, String)>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|(tone, cell)| (*tone, show(cell))).collect())
            .collect();
        let mut natural = vec![0; self.columns.len()];
        for row in &shown {
            for (width, (_, cell)) in natural.iter_mut().zip(row) {
                *width = (*width).max(columns(cell));
            }
        }
        let mut lines = Vec::new();
        for (place, block) in self.blocks(&natural, width).iter().enumerate() {
            for row in &shown {
                let is_told = |(column, _): &(usize, usize)| {
                    let cell = row.get(*column);
                    self.groups[*column] > 0 && cell.is_some_and(|(_, cell)| !cell.is_empty())
                };
                if place == 0 || block.iter().any(is_told) {
                    lines.extend(self.row_lines(block, row));
                }
            }
        }
        lines
    }

    /// Which columns stand beside each other, and how wide they are.
    fn blocks(&self, natural: &[usize], room: usize) -> Vec<Block> {
        let used = |with_bars: bool| -> Vec<usize> {
            let is_used = |column: &usize| {
                natural[*column] > 0 && (with_bars || self.columns[*column] != Column::Bar)
            };
            (0..self.columns.len()).filter(is_used).collect()
        };
        let whole = used(true);
        if Self::total(&whole, natural) <= room {
            return vec![whole.iter().map(|column| (*column, natural[*column])).collect()];
        }
        let least: Vec<usize> = (0..natural.len())
            .map(|column| match self.columns[column] {
                Column::Text => natural[column].min(TEXT_COLUMNS_MIN),
                Column::Number | Column::Name | Column::Bar => natural[column],
            })
            .collect();
        let fits = |columns: &[usize]| Self::total(columns, &least) <= room;
        let (keys, others): (Vec<usize>, Vec<usize>) =
            used(false).into_iter().partition(|column| self.groups[*column] == 0);
        let mut blocks: Vec<Vec<usize>> = Vec::new();
        let mut block = keys.clone();
        let of_group = |left: &usize, right: &usize| self.groups[*left] == self.groups[*right];
        for group in others.chunk_by(of_group) {
            let is_whole = fits(&[&keys, group].concat());
            for columns in if is_whole { group.chunks(group.len()) } else { group.chunks(1) } {
                let wider = [&block, columns].concat();
                if fits(&wider) || block.len() == keys.len() {
                    block = wider;
                } else {
                    blocks.push(std::mem::replace(&mut block, [&keys, columns].concat()));
                }
            }
        }
        blocks.push(block);
        blocks.into_iter().map(|block| self.narrowed(&block, natural, room)).collect()
    }

    /// Texts get narrower until the columns fit, the widest first, and of what a row is of not before
    /// the others; numbers and names do only where nothing else is left.
    fn narrowed(&self, block: &[usize], natural: &[usize], room: usize) -> Block {
        let mut widths = natural.to_vec();
        let is_text = |column: usize| self.columns[column] == Column::Text;
        let is_key = |column: usize| self.groups[column] == 0;
        let text_not_key = |column: usize| is_text(column) && !is_key(column);
        let stages: [(&dyn Fn(usize) -> bool, usize); 4] = [
            (&text_not_key, TEXT_COLUMNS_MIN),
            (&is_text, TEXT_COLUMNS_MIN),
            (&is_text, COLUMNS_MIN),
            (&|_| true, COLUMNS_MIN),
        ];
        for (may_narrow, least) in stages {
            while Self::total(block, &widths) > room {
                let narrowable = block.iter().filter(|column| may_narrow(**column));
                let widest = narrowable.max_by_key(|column| widths[**column]);
                let Some(widest) = widest.filter(|column| widths[**column] > least) else { break };
                widths[*widest] -= 1;
            }
        }
        block.iter().map(|column| (*column, widths[*column])).collect()
    }

    fn total(block: &[usize], widths: &[usize]) -> usize {
        block.iter().map(|column| GAP + widths[*column]).sum()
    }

    /// A row of a block: one line, or more where a text is longer than its column.
    fn row_lines(&self, block: &Block, row: &[(Tone, String)]) -> Vec<Vec<(Tone, String)>> {
        let cells: Vec<(Tone, Vec<String>)> = block
            .iter()
            .map(|(column, width)| match row.get(*column) {
                Some((tone, cell)) if columns(cell) <= *width => (*tone, vec![cell.clone()]),
                Some((tone, cell)) => (*tone, wrap_indented(cell, *width)),
                None => (Tone::Plain, vec![]),
            })
            .collect();
        let height = cells.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
        let line = |at: usize| {
            let mut pieces = Vec::new();
            for ((column, width), (tone, lines)) in block.iter().zip(&cells) {
                let cell = lines.get(at).map_or("", String::as_str);
                let blanks = " ".repeat(width.saturating_sub(columns(cell)));
                pieces.push((Tone::Plain, " ".repeat(GAP)));
                let cell = (*tone, cell.to_owned());
                if self.columns[*column] == Column::Number {
                    pieces.extend([(Tone::Plain, blanks), cell]);
                } else {
                    pieces.extend([cell, (Tone::Plain, blanks)]);
                }
            }
            pieces
        };
        (0..height).map(line).collect()
    }
}

/// Lines of a text that is indented: all of them are.
fn wrap_indented(text: &str, width: usize) -> Vec<String> {
    let indent = text.len() - text.trim_start_matches(' ').len();
    let lines = wrap(text, width.saturating_sub(indent));
    lines.into_iter().map(|line| format!("{}{line}", " ".repeat(indent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(table: &Table, width: usize) -> String {
        let lines = table.lines(width, &str::to_owned).into_iter();
        let line = |pieces: Vec<(Tone, String)>| {
            let text: String = pieces.into_iter().map(|(_, text)| text).collect();
            format!("{}\n", text.trim_end())
        };
        lines.map(line).collect()
    }

    fn classes() -> Table {
        let mut table = Table::new("l rrb rrb");
        table.row(Tone::Dim, ["", "all", "", "", "above p99"]);
        let cells = ["on a pCPU", "4.57 s", "49.4 %", "######", "561 ms", "40.9 %", "#####"];
        table.row(Tone::Plain, cells);
        table.row(Tone::Dim, ["latency", "9.25 s", "", "", "1.37 s"]);
        table.row(Tone::Dim, ["dropped", "3"]);
        table
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("l rb");
        table.row(Tone::Plain, ["who", "ran", ""]);
        table.row(Tone::Plain, ["vm2", "12 ms", "##"]);
        assert_eq!(printed(&table, 24), "  who    ran\n  vm2  12 ms  ##\n");
    }

    #[test]
    fn a_table_without_room_loses_its_bars_first() {
        let with_bars = "                all                  above p99\n  \
             on a pCPU  4.57 s  49.4 %  ######     561 ms  40.9 %  #####\n";
        assert!(printed(&classes(), 61).starts_with(with_bars), "{}", printed(&classes(), 61));
        let without = "                all          above p99\n  \
             on a pCPU  4.57 s  49.4 %     561 ms  40.9 %\n  \
             latency    9.25 s             1.37 s\n  \
             dropped         3\n";
        assert_eq!(printed(&classes(), 60), without);
    }

    #[test]
    fn then_groups_go_on_below_with_what_their_rows_are_of() {
        let below = "                all\n  \
             on a pCPU  4.57 s  49.4 %\n  \
             latency    9.25 s\n  \
             dropped         3\n             \
             above p99\n  \
             on a pCPU     561 ms  40.9 %\n  \
             latency       1.37 s\n";
        assert_eq!(printed(&classes(), 40), below);
    }

    #[test]
    fn a_long_text_goes_on_in_the_line_below_before_columns_do() {
        let mut table = Table::new("l rr");
        table.row(Tone::Plain, ["vm2 vCPU1 on pCPU1, vm1 vCPU1 waiting", "4.65 s", ">99.9 %"]);
        let expected = "  vm2 vCPU1 on        4.65 s  >99.9 %\n  \
             pCPU1, vm1 vCPU1\n  \
             waiting\n";
        assert_eq!(printed(&table, 37), expected);
    }

    #[test]
    fn what_is_indented_stays_so_where_it_goes_on_below() {
        let mut table = Table::new("l r");
        table.row(Tone::Plain, ["this vslice", "9.30 s"]);
        table.row(Tone::Plain, ["  vslice (at least 3 threads)", "4.65 s"]);
        let expected = "  this vslice           9.30 s\n    \
             vslice (at least 3  4.65 s\n    \
             threads)\n";
        assert_eq!(printed(&table, 30), expected);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_and_nothing_is_lost(
            width in 40_usize..120,
            names in prop::collection::vec("[a-z]{1,30}( [a-z]{1,30}){0,3}", 1..5),
            numbers in prop::collection::vec("[0-9]{1,12}", 6),
        ) {
            let mut table = Table::new("ll r rr rrr");
            for name in &names {
                let texts = [name.clone(), name.clone()];
                table.row(Tone::Plain, texts.into_iter().chain(numbers.iter().cloned()));
            }
            let text = printed(&table, width);
            for line in text.lines() {
                prop_assert!(columns(line) <= width, "{}: {:?}", width, line);
            }
            for number in &numbers {
                let times = text.split_whitespace().filter(|word| word == number).count();
                let is_alike = |other: &&String| *other == number;
                let expected = names.len() * numbers.iter().filter(is_alike).count();
                prop_assert_eq!(times, expected, "{}", text);
            }
        }
    }
}

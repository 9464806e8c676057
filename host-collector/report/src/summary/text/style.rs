//! How a page looks.

use vslice_core::text::Letters;

/// How a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal. From [`WIDTH_MIN`] on no line is longer: sentences are wrapped, tables
    /// lose their bars and then go on below.
    pub width: usize,
    /// Whether to use the terminal's colours.
    pub colour: bool,
    /// Which characters the reader's terminal can show.
    pub letters: Letters,
}

/// The narrowest terminal that a page is made for.
pub const WIDTH_MIN: usize = 60;

/// The width of a page in files and pipes.
pub const WIDTH_DEFAULT: usize = 100;

impl Style {
    /// A page for a file.
    pub const PLAIN: Style =
        Style { width: WIDTH_DEFAULT, colour: false, letters: Letters::Unicode };
}

impl Default for Style {
    fn default() -> Self {
        Style::PLAIN
    }
}

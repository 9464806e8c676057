//! The summary as a page of text: what an engineer wants at a glance, in the order of the questions.

mod chain;
mod clock;
mod contradiction;
mod exits;
mod front;
mod full;
pub(super) mod io;
pub mod page;
pub(super) mod sampled;
mod service;
mod style;
mod table;
mod tables;
mod vcpus;

pub use front::{LINES_MAX, render};
pub(crate) use full::iops;
use full::phases_warning;
pub use full::render_full;
pub use style::{Style, WIDTH_DEFAULT, WIDTH_MIN};

/// Columns of a name that are printed; the JSON has it whole.
const NAME_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests;

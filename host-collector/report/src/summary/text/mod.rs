//! The summary as a page of text: what an engineer wants at a glance, in the order of the questions.

mod advice;
mod asked;
mod chain;
mod clock;
mod contradiction;
mod exits;
mod front;
mod full;
pub(super) mod host_io;
pub(in crate::summary) mod io;
mod observed;
pub mod page;
pub(super) mod sampled;
mod selection;
mod service;
mod style;
mod table;
mod tables;
mod under_way;
mod vcpus;
mod what_if;

pub(super) use chain::{
    heading as read_heading, io_marks, sentence as span_sentence, unattributable,
};
pub use contradiction::first_words;
pub use front::{LINES_MAX, render};
pub(crate) use full::iops;
use full::phases_warning;
pub use full::render_full;
pub use io::why as why_unphased;
pub use observed::phase_name;
pub(super) use observed::{heading as observed_heading, told as told_observed};
pub use style::{Style, WIDTH_DEFAULT, WIDTH_MIN};

/// Columns of a name that are printed; the JSON has it whole.
const NAME_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests;

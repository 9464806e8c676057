//! `vslice top`: a recording that goes on, looked at.
//!
//! ```text
//! recording --news--> looking (the live analysis) --a Second each second--> screen, lines of JSON, metrics
//! ```

pub(crate) mod draw;
pub(crate) mod listener;
pub(crate) mod looking;
pub(crate) mod recorded;
pub(crate) mod terminal;
pub(crate) mod view;

#[cfg(test)]
mod screens_tests;

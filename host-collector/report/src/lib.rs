//! What a run directory says: its analysis, the summary of it, and how runs compare.
//!
//! Everything here is a function of run directories. It needs neither Linux nor rights, so that a run that
//! was made on a production host can be looked at on a laptop.
//!
//! ```text
//! analyse  a run directory -> observers: each stream is decoded and laid on one clock; the summary is the first
//!          observer
//!          live: the same of a recording that goes on, a value each second
//! summary  what is said of a run: figures, causes, warnings, and their text
//! compare  runs of two conditions against each other
//! runs     the run directories below a folder, one line each
//! who      what threads of the host are called
//! ```
#![forbid(unsafe_code)]

pub mod analyse;
pub mod compare;
pub mod runs;
pub mod summary;
pub mod who;

pub use analyse::{analyse, analyse_with, live};

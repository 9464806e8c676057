//! A run in the forms that other tools open.
//!
//! Each form is an observer of the one analysis (`vslice_report::analyse::observer`), and writes while it is told: none
//! holds the run in memory. Like the report, they need neither Linux nor rights.
//!
//! ```text
//! csv      requests with their parts, a row each
//! folded   off-CPU time by stack, for flame graphs
//! hlog     latencies second by second, as histograms
//! page     a page of HTML to look at, with all figures
//! prometheus  metrics, of a recording that goes on
//! perfetto pCPUs, threads, reasons and requests over time, for Perfetto
//! ```
//!
//! `comparison_page` has no run but a comparison of many: conditions side by side, as a page of HTML.
#![forbid(unsafe_code)]

pub mod comparison_page;
pub mod csv;
pub mod folded;
#[cfg(test)]
mod full;
pub mod hlog;
mod html;
pub mod page;
pub mod perfetto;
pub mod prometheus;

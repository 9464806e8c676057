//! Lays requests over timelines: what was the host doing to the vCPU while a request was under way?
//!
//! Pure and streaming: requests and spans come in order of time, breakdowns go out.

pub mod breakdown;

pub use breakdown::{Attribution, Breakdown, Part, PartsNs};

//! One run of a plan: guests up, recording on, workload through, everything down again.

pub mod manifest;
pub mod watch;

//! When a recording is over.

use std::time::Duration;

/// When a recording is over: when its readers have read all, at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntilOver {
    /// After this long.
    pub duration: Option<Duration>,
    /// Whether an interrupt is the end, rather than a failure.
    pub is_interrupt_the_end: bool,
    /// What is said when it begins.
    pub announcement: String,
}

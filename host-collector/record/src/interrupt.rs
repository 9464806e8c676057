//! What a user says by Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether there was an interrupt since the last call.
pub fn take_interrupt(interrupted: &AtomicBool) -> bool {
    interrupted.swap(false, Ordering::Relaxed)
}

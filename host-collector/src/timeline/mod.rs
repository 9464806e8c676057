//! What each watched thread was doing at every instant. Pure: events in, spans out.

pub mod span;

pub use span::{Antagonist, BlockReason, Span, ThreadState, UnknownCause};

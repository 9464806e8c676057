//! From a guest's clock to the host's, with a bound on the error.

pub mod estimate;

pub use estimate::{ClockError, ClockMap, Exchange, Mapped};

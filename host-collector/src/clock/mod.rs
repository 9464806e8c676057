//! From a guest's clock to the host's, with a bound on the error.

pub mod estimate;
pub mod host_time;
pub mod tsc;

pub use estimate::{
    ClockError, ClockMap, Cut, Exchange, Mapped, MappedLength, Outermost, Unmapped,
};

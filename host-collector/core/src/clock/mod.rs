//! From a guest's clock to the host's, with a bound on the error.

pub mod estimate;
pub mod host_time;
mod round_trips;
pub mod tsc;

pub use estimate::{
    ClockError, ClockMap, Cut, Exchange, Mapped, MappedLength, Outermost, Unmapped,
};
pub use round_trips::RoundTrips;

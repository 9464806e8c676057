//! One run of a plan: guests up, recording on, workload through, everything down again.
//!
//! [`prepare`] and [`Prepared::conduct`] make the run and leave a run directory; [`analyse()`] makes
//! a summary of one, from nothing but what is in it.

pub mod analyse;
pub mod census;
pub mod conduct;
pub mod error;
pub mod evidence;
mod home;
mod lock_facts;
pub mod manifest;
mod observer;
mod options;
mod reserve;
mod seat;
mod sink;
mod stage;
pub mod watch;

pub use analyse::analyse;
pub use conduct::{Prepared, prepare};
pub use error::{RunError, sentence};
pub use evidence::EvidenceSetting;
pub use options::RunOptions;

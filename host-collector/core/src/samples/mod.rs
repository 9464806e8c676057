//! What can be said of threads by looking at them again and again, where no events may be recorded.
//!
//! ```text
//! item      one look at a thread, and its scheduler's totals
//! evidence  one look -> the reason for being off a pCPU
//! tally     all looks -> shares of each thread's time
//! interval  how far a share can be trusted
//! ```
//!
//! Looks give shares of a thread's time, not counts, lengths or who did it: a sleep that is shorter than
//! the time between two looks is seen now and then. What the scheduler itself counts in `schedstat` is no
//! sample: time on a pCPU, time spent waiting for one, timeslices. The kernel brings these up to date when
//! a thread is switched and, the first, at each tick, so that over a window they are exact to about a tick,
//! or to the wait that is going on.

pub mod evidence;
pub mod interval;
pub mod item;
pub mod tally;

pub use evidence::Doing;
pub use item::{Call, Look, SampleItem, Schedstat};
pub use tally::{Gaps, Scheduled, Share, Tally, ThreadShares};

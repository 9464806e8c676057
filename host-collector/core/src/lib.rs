//! What happened to each request, from what was recorded: the pure part of vslice.
//!
//! Nothing here reads a clock, a file or an environment variable, or starts a thread: equal records give
//! equal answers, on any machine.
//!
//! ```text
//! units       one type for each clock and each kind of index
//! host_event  what the host records: switches, wakings, exits, I/O
//! samples     what is seen by looking, where nothing may be recorded
//! clock       from a guest's clock to the host's, with a bound on the error
//! timeline    events -> what each thread did at each moment, and why
//! join        a request's latency -> parts that add up to it
//! extent      where a file's bytes lie on a disk
//! task        who a thread id is
//! control_groups  which control groups there were
//! text        what of a stranger's text may be shown
//! calendar    days, of times that people read and write
//! ```
#![forbid(unsafe_code)]

pub mod calendar;
pub mod clock;
pub mod control_groups;
pub mod extent;
pub mod host_event;
pub mod host_view;
pub mod join;
pub mod samples;
pub mod task;
pub mod text;
pub mod timeline;
pub mod units;

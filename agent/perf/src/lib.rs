//! Events of the kernel by `perf_event_open(2)`, as guest and host both use them.
//!
//! ```text
//! tracefs, private_mount   where tracefs is, and mounting it where nobody else sees it
//! format                   where a tracepoint's fields lie, by what tracefs says       (pure)
//! filter                   filters over sets of numbers                                (pure)
//! attr                     what is asked of the kernel                                 (pure)
//! sys, ring                the system calls and the shared memory: all that is unsafe
//! record, bytes            the bytes of a ring -> its records                          (pure)
//! online                   which CPUs there are
//! ```
//!
//! A CPU here is the kernel's: a pCPU to a host, a vCPU to a guest. Time is `CLOCK_MONOTONIC_RAW`.

pub mod attr;
pub mod bytes;
pub mod filter;
pub mod format;
pub mod online;
pub mod private_mount;
pub mod record;
pub mod ring;
pub mod sys;
pub mod tracefs;

pub use ring::{Ring, RingError};
pub use tracefs::Tracefs;

//! The load that vslice puts on a machine, and the record of what became of it.
//!
//! Nothing here knows of vsock or of virtual machines: it runs as well in a process on a host.
//!
//! ```text
//! hog       one counting thread per named vCPU
//! reader    O_DIRECT reads, one after the other or many in flight; every one is recorded
//! ring      the way of a record from the reader, which never waits, to whoever sends it on
//! clock     what the records are stamped with
//! gap       a loop that sees when its vCPU was taken away, and the decision by whom
//! ```

pub mod clock;
pub mod error;
pub mod gap;
pub mod hog;
pub mod pin;
pub mod reader;
pub mod ring;

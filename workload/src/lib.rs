//! The load that vslice puts on a machine, and the record of what became of it.
//!
//! Nothing here knows of vsock or of virtual machines: it runs as well in a process on a host.

pub mod spec;

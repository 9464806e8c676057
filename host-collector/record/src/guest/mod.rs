//! The collector's end of the conversation with one guest.
//!
//! [`connection`] is the byte stream (AF_VSOCK, a hybrid Unix socket or a virtio-serial port),
//! [`session`] the conversation drawn in `vslice_wire`, one thread for each guest. Nothing that a
//! guest sends is trusted: the wire bounds every frame, the session bounds how many there may be.

pub mod agent_file;
pub mod connection;
pub mod exchange;
pub mod live;
pub mod observation;
pub mod session;
pub mod start;

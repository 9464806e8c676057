//! Virtual machine monitors on this host: their threads, where those run, and the host itself.

pub mod host;
pub mod pin;
pub mod procfs;
pub mod threads;

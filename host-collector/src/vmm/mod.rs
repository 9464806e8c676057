//! Virtual machine monitors on this host: their threads, where those run, QEMU's big lock and its
//! devices' addresses, quotas of their control groups, and the host itself.

pub mod bql;
pub mod cgroup;
pub mod conditions;
pub mod extents;
pub mod found;
pub mod frequency;
pub mod host;
pub mod host_disks;
pub mod image;
pub mod io_scheduler;
pub mod journal;
pub mod memory_map;
pub mod open_files;
pub mod pin;
pub mod plug;
pub mod procfs;
pub mod qemu_args;
pub mod qga;
pub mod qmp;
pub mod scheduling;
pub mod slice;
pub mod steal;
pub mod threads;
pub mod tsc;
pub mod way;

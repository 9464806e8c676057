//! The VMs of this host as values, and the host under them.
//!
//! ```text
//! vm, threads       VMs that run here, and what each thread of a VMM is for
//! disk, running_disks, image, host_disks, open_files, extents   their disks, and what those lie on
//! helper, census, unix_sockets   who else works for a VM, found among all processes
//! bql, memory_map   QEMU's big lock and the addresses of its devices
//! qemu_args, qmp, qga   QEMU's command line, monitor and guest agent
//! vmm_args, firecracker_api   the command lines of other VMMs, and Firecracker's API
//! agent_transport, plug   how an agent in a guest reaches this host, and a port that is plugged in for it
//! control_groups    which control group a thread is in, and what that is called
//! cgroup, scheduling, slice, steal, frequency, conditions, topology, tsc   how they are scheduled, and on what
//! pin, io_scheduler, collector_affinity, journal   what is set for a run, and put back after it
//! procfs, scratch, host_clock   the kernel's files, directories of our own, the clock
//! ```

pub mod agent_transport;
pub mod bql;
pub mod census;
pub mod cgroup;
pub mod collector_affinity;
pub mod conditions;
pub mod control_groups;
pub mod disk;
pub mod extents;
pub mod firecracker_api;
pub mod frequency;
pub mod helper;
pub mod host;
pub mod host_clock;
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
pub mod running_disks;
pub mod scheduling;
pub mod scratch;
pub mod slice;
pub mod steal;
pub mod threads;
pub mod topology;
pub mod tsc;
mod unix_sockets;
pub mod vm;
pub mod vmm_args;

//! A rig in which known causes take a vCPU thread off its pCPU, to measure vslice itself by.
//!
//! ```text
//! machine    QEMU with a guest of one boot sector, or
//! scripted   a process that imitates a VMM and blocks its "vCPU" thread on purpose
//! inject     rivals, quotas, stops and storms, each undone when it is dropped
//! ```
//!
//! Everything here says exactly what it did and when, in [`vslice_core::units::HostNs`]; nothing here
//! looks at what a recorder saw. Comparing the two is somebody else's work.

pub mod boot_sector;
pub mod frontend;
pub mod inject;
pub mod machine;
mod own_thread;
pub mod scripted_process;

use own_thread::{pin_self, sleep_for, spin_until};

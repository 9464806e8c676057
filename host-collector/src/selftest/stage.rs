//! What every scenario of a self-test is told.

use super::SelftestConfig;
use crate::lab::plan::Accelerator;
use std::path::Path;
use std::thread;
use vslice_core::timeline::GuestMode;

/// One accelerator of a self-test.
#[derive(Debug)]
pub struct Stage<'a> {
    /// What the self-test knows.
    pub config: &'a SelftestConfig,
    /// QEMU.
    pub qemu: &'a Path,
    /// What runs the guests.
    pub accelerator: Accelerator,
}

impl Stage<'_> {
    pub(super) fn mode(&self) -> GuestMode {
        match self.accelerator {
            Accelerator::Kvm => GuestMode::Kvm,
            Accelerator::Tcg => GuestMode::Tcg,
        }
    }

    pub(super) fn named(&self, name: &str) -> String {
        match self.accelerator {
            Accelerator::Kvm => format!("{name}, KVM"),
            Accelerator::Tcg => format!("{name}, TCG"),
        }
    }

    pub(super) fn wait(&self) {
        thread::sleep(self.config.window);
    }
}

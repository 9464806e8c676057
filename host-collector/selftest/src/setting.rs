//! The setting that every scenario of a self-test runs in.

use super::SelftestConfig;
use std::path::Path;
use std::thread;
use vslice_core::timeline::GuestMode;
use vslice_lab::plan::LabAccelerator;

/// One accelerator of a self-test.
#[derive(Debug)]
pub struct Setting<'a> {
    /// What the self-test knows.
    pub config: &'a SelftestConfig,
    /// QEMU.
    pub qemu: &'a Path,
    /// What runs the guests.
    pub accelerator: LabAccelerator,
}

impl Setting<'_> {
    pub(super) fn mode(&self) -> GuestMode {
        match self.accelerator {
            LabAccelerator::Kvm => GuestMode::Kvm,
            LabAccelerator::Tcg => GuestMode::Tcg,
        }
    }

    pub(super) fn named(&self, name: &str) -> String {
        match self.accelerator {
            LabAccelerator::Kvm => format!("{name}, KVM"),
            LabAccelerator::Tcg => format!("{name}, TCG"),
        }
    }

    pub(super) fn wait(&self) {
        thread::sleep(self.config.window);
    }
}

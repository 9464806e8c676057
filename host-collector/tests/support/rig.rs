//! A real QEMU with one vCPU, on a pCPU of its own.

use libtest_mimic::Failed;
use std::path::Path;
use vslice_core::units::PcpuId;
use vslice_lab::plan::LabAccelerator;
use vslice_lab::tools;
use vslice_record::perf::check_rights;
use vslice_selftest::rig::boot_sector::Guest;
use vslice_selftest::rig::frontend::Frontend;
use vslice_selftest::rig::machine::{Machine, MachineConfig, Placement, START_LIMIT};

/// What this host lacks to record one.
pub(crate) fn missing() -> Option<String> {
    if let Err(error) = check_rights() {
        return Some(error.to_string());
    }
    if pcpus().0 == pcpus().1 {
        return Some("there is only one pCPU".to_owned());
    }
    tools::find(tools::QEMU).is_none().then(|| format!("there is no {}", tools::QEMU))
}

/// For the vCPU, and for everything else.
pub(crate) fn pcpus() -> (PcpuId, PcpuId) {
    let online: Vec<PcpuId> = vslice_host::host::online_pcpus().expect("sysfs").iter().collect();
    (*online.last().expect("this runs on one"), online[0])
}

/// Of this QEMU.
pub(crate) fn machine_of(qemu: &Path, guest: Guest, frontend: Frontend) -> Result<Machine, Failed> {
    let (vcpu, others) = pcpus();
    let config = MachineConfig {
        qemu: qemu.to_owned(),
        accelerator: LabAccelerator::Tcg,
        guest,
        frontend,
        placement: Some(Placement { vcpu, others }),
        start_limit: START_LIMIT,
    };
    Ok(Machine::start(&config)?)
}

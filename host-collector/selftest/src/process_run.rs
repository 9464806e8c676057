//! The run directory of one VMM's process, as an attach to it begins one. What vslice knows beside the
//! events comes to the timelines through this file and the analysis, as it does in a report: whatever is
//! lost or wrong on that way, the self-test shows.

use super::SelftestError;
use super::observe::Observed;
use std::slice;
use vslice_core::timeline::{FoundLock, StackTable, Timeline};
use vslice_core::units::Tid;
use vslice_host::scratch::{self, PrivateDir};
use vslice_host::tsc::KvmDebugfs;
use vslice_host::vm;
use vslice_record::vm_records;
use vslice_report::analyse;
use vslice_trace::RunDir;
use vslice_trace::host::HostFacts;
use vslice_trace::lock::Bql;
use vslice_trace::manifest::{Manifest, VmRecord};

/// A run directory with one VM and no events, and what its manifest says.
#[derive(Debug)]
pub(super) struct ProcessRun {
    run: RunDir,
    /// Removes the run directory.
    _directory: PrivateDir,
    manifest: Manifest,
    /// What a record showed of its big lock.
    shown: Option<FoundLock>,
}

impl ProcessRun {
    /// What an attach finds of this process.
    pub(super) fn of(pid: Tid, host: &HostFacts) -> Result<ProcessRun, SelftestError> {
        let debugfs = KvmDebugfs::find().ok();
        let found = vm::look_at(pid, debugfs.as_ref()).ok_or(SelftestError::NoVm { pid })?;
        let directory = PrivateDir::create(&scratch::parent_dir())?;
        let run = RunDir::create(&directory.path().join("run"))?;
        let manifest = Manifest {
            vms: vm_records(slice::from_ref(&found)),
            environment: Some(host.clone()),
            ..Manifest::begun(Tid(std::process::id()))
        };
        Ok(ProcessRun { run, _directory: directory, manifest, shown: None })
    }

    /// What is known of the VM.
    ///
    /// # Panics
    /// Never: there is one.
    pub(super) fn vm(&self) -> &VmRecord {
        &self.manifest.vms[0]
    }

    /// The same, for what an attach learns later.
    pub(super) fn vms_mut(&mut self) -> &mut [VmRecord] {
        &mut self.manifest.vms
    }

    /// The threads of the VM's process.
    pub(super) fn tids(&self) -> Vec<Tid> {
        self.vm().threads.iter().map(|thread| thread.tid).collect()
    }

    /// Where the big lock is.
    pub(super) fn bql(&self) -> Option<u64> {
        self.vm().lock.bql.as_ref().map(|bql| bql.address)
    }

    /// Calls another lock the big one, or none.
    pub(super) fn set_bql(&mut self, address: Option<u64>) {
        let bql = |address| Bql {
            address,
            symbol: String::from("named by the self-test"),
            unlock_symbol: None,
            owner_seen: None,
            looks_count: 0,
        };
        self.manifest.vms[0].lock.bql = address.map(bql);
    }

    /// Looks for the big lock in what was recorded, as a report does where QEMU's code does not tell it.
    pub(super) fn find_bql(&mut self, observed: &Observed) -> Result<(), SelftestError> {
        self.run.write_json("run.json", &self.manifest)?;
        let mut search = analyse::lock_search(&self.run, observed.stacks())?;
        observed.events().iter().for_each(|event| search.push(event));
        self.shown = search.finish().pop().flatten();
        Ok(())
    }

    /// What that showed.
    pub(super) fn found_bql(&self) -> Option<FoundLock> {
        self.shown
    }

    /// A timeline that knows what the run directory says.
    pub(super) fn timeline(&self, stacks: StackTable) -> Result<Timeline, SelftestError> {
        self.run.write_json("run.json", &self.manifest)?;
        Ok(analyse::timeline(&self.run, stacks, &[self.shown])?)
    }
}

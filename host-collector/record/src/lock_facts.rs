//! What is asked of each QEMU before its run is recorded, so that waits for its big lock can be
//! proven and the devices behind them named. Nothing of it is needed for a run: what cannot be found
//! becomes the reason why.

use crate::guests::RecordedVm;
use std::path::{Path, PathBuf};
use vslice_core::units::Tid;
use vslice_host::bql;
use vslice_host::qmp::{Qmp, QmpError};
use vslice_trace::lock::LockRecord;
use vslice_trace::manifest::VmRecord;
use vslice_trace::memory_map::MemoryMap;

/// Notes the lock of each VM, for which nobody is asked; and its devices, if VMs are given whose monitors
/// may be. A monitor takes the big lock to answer: not while requests are measured.
pub(crate) fn note(records: &mut [VmRecord], asked: Option<&[RecordedVm]>) {
    for record in &mut *records {
        record.lock = lock(record.pid);
    }
    for (record, vm) in records.iter_mut().zip(asked.into_iter().flatten()) {
        match memory_map(vm.vm.qmp_sockets.first().map(PathBuf::as_path)) {
            Ok(map) => record.memory_map = map,
            Err(reason) => record.memory_map_missing = Some(reason),
        }
    }
}

/// Where a QEMU has its lock, or why that is not known.
fn lock(pid: Tid) -> LockRecord {
    let exe_data = bql::exe_data(pid).ok();
    match bql::locate(pid) {
        Ok(bql) => LockRecord { bql: Some(bql), bql_missing: None, exe_data },
        Err(error) => LockRecord { bql: None, bql_missing: Some(error.to_string()), exe_data },
    }
}

/// The devices of a guest as they are now that it has booted, or why they are not known.
fn memory_map(qmp_path: Option<&Path>) -> Result<MemoryMap, String> {
    let path = qmp_path.ok_or(
        "QEMU has no monitor socket, because its path would be too long: set VSLICE_TMP to a directory \
        with a shorter path",
    )?;
    let ask = || -> Result<String, QmpError> {
        // It is disconnected where this ends.
        Qmp::connect(path)?.human_monitor_command("info mtree -f")
    };
    let text = ask().map_err(|error| error.to_string())?;
    let map = vslice_host::memory_map::parse(&text);
    if map.is_empty() {
        let beginning = vslice_core::text::harmless(&text.chars().take(80).collect::<String>());
        return Err(format!("the output of `info mtree -f` has an unknown format: {beginning}"));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_is_a_reason() {
        let gone = lock(Tid(u32::MAX));
        assert_eq!((gone.bql, gone.exe_data), (None, None));
        let reason = gone.bql_missing.expect("a reason");
        assert!(reason.starts_with("/proc/4294967295/exe cannot be read"), "{reason}");
        let reason = memory_map(Some(Path::new("/nonexistent/qmp"))).expect_err("no socket");
        assert!(reason.starts_with("QEMU's monitor socket /nonexistent/qmp cannot"), "{reason}");
        let reason = memory_map(None).expect_err("no path");
        assert!(reason.contains("too long"), "{reason}");
    }

    #[test]
    fn a_manifest_from_before_these_facts_is_still_read() {
        let old = r#"{"name": "vm1", "pid": 7, "device_pid": null, "block_bytes": null,
            "threads": [], "reader_vcpu": null, "hogs": [], "guest": null}"#;
        let vm: VmRecord = serde_json::from_str(old).expect("the new fields have defaults");
        assert_eq!((vm.lock, vm.memory_map.is_empty()), (LockRecord::default(), true));
    }

    #[test]
    fn this_process_has_variables_though_it_is_no_qemu() {
        let own = lock(Tid(std::process::id()));
        assert!(own.exe_data.is_some() && own.bql.is_none() && own.bql_missing.is_some());
    }
}

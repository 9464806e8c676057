//! Where a run was made, in lines for a reader and in full for a machine.

use crate::summary::model::Environment;
use vslice_trace::manifest::{GuestRecord, Manifest, VmRecord};

pub(super) fn environment(manifest: &Manifest) -> Environment {
    let mut vms = manifest.vms.clone();
    // A file may be in thousands of pieces, of which nobody wants to read.
    for vm in &mut vms {
        vm.disk.iter_mut().for_each(|disk| disk.extents.clear());
        vm.disks.iter_mut().for_each(|disk| disk.extents.clear());
    }
    let mut lines = manifest.environment_lines.clone();
    lines.extend(manifest.vms.iter().filter_map(|vm| Some(guest_line(vm, vm.guest.as_ref()?))));
    lines.extend(manifest.vms.iter().filter_map(scheduling_line));
    if let Some(line) = manifest.frequency.line(&manifest.pcpus) {
        lines.push(format!("pCPUs of the run: {line}"));
    }
    lines.push(format!("connection to the guests: {}", manifest.vsock_way));
    let details = serde_json::json!({
        "host": manifest.environment,
        "image": manifest.image,
        "plan": manifest.plan,
        "vms": vms,
    });
    Environment { lines, details }
}

fn guest_line(vm: &VmRecord, guest: &GuestRecord) -> String {
    let mut line = format!("{}: guest kernel {}", vm.name, guest.kernel_release);
    let clock_source = guest.clock_source.as_ref();
    line.extend(clock_source.map(|name| format!(", clock source {name}")));
    if !guest.target.is_empty() {
        line.push_str(&format!(", reads {}", guest.target));
        let scheduler = guest.io_scheduler.as_ref();
        line.extend(scheduler.map(|name| format!(" (I/O scheduler {name})")));
    }
    line
}

/// How the threads compete for their pCPUs, those together that do so alike.
fn scheduling_line(vm: &VmRecord) -> Option<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for thread in &vm.threads {
        let Some(scheduling) = thread.scheduling.as_ref().map(ToString::to_string) else {
            continue;
        };
        match groups.iter_mut().find(|(other, _)| *other == scheduling) {
            Some((_, roles)) => roles.push(thread.role.to_string()),
            None => groups.push((scheduling, vec![thread.role.to_string()])),
        }
    }
    let text = match groups.as_slice() {
        [] => return None,
        [(all, _)] => format!("all threads {all}"),
        groups => {
            let group = |(scheduling, roles): &(String, Vec<String>)| {
                let mut roles = roles.clone();
                roles.dedup();
                format!("{} {scheduling}", roles.join(" and "))
            };
            groups.iter().map(group).collect::<Vec<_>>().join(", ")
        }
    };
    Some(format!("{}: {text}", vm.name))
}

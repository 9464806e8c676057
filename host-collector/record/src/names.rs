//! What attached VMs are called in the run directory.

use std::collections::BTreeMap;
use vslice_host::vm::Vm;
use vslice_trace::VmName;

/// What a name in the run directory has room for.
const NAME_CHARS_MAX: usize = 32;

/// Unique file names for VMs. Characters that a file name cannot have become dashes, and VMs that would
/// have the same name are named after their processes.
#[must_use]
pub fn names_of(vms: &[Vm]) -> Vec<VmName> {
    let own = |vm: &Vm| {
        let letters = vm.name.as_deref()?.chars().take(NAME_CHARS_MAX).map(|letter| {
            if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }
        });
        VmName::try_from(letters.collect::<String>()).ok()
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in vms.iter().filter_map(own) {
        *counts.entry(name.as_str().to_owned()).or_default() += 1;
    }
    let name = |vm: &Vm| {
        let single = own(vm).filter(|name| counts.get(name.as_str()) == Some(&1));
        let by_process = || VmName::try_from(format!("pid-{}", vm.pid).as_str());
        single.unwrap_or_else(|| by_process().expect("letters, digits and a dash"))
    };
    vms.iter().map(name).collect()
}

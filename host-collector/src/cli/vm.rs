//! The argument that names a VM, and the search for it.

use super::complete;
use anyhow::bail;
use clap::Args;
use clap_complete::ArgValueCompleter;
use vslice_host::vm::Vm;

/// One VM, given as an argument or as an option.
#[derive(Debug, Args)]
pub(crate) struct VmArg {
    /// The VM: its name, its VMM's process id, or the path of its QMP socket (see `vslice ps`)
    #[arg(value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    word: Option<String>,
    /// Same as the argument VM
    #[arg(long = "vm", value_name = "VM", conflicts_with = "word")]
    option: Option<String>,
}

impl VmArg {
    /// The VM's name as the user gave it, if one was given.
    pub(crate) fn wanted(&self) -> Option<&str> {
        self.word.as_deref().or(self.option.as_deref())
    }
}

/// The one VM that matches `VM` or `VM=ROLE`, and the role.
pub(crate) fn choose_with_role(wanted: &str, vms: &[Vm]) -> anyhow::Result<(Vm, Option<String>)> {
    // A name may have a `=` of its own.
    if let Some((name, role)) = wanted.rsplit_once('=')
        && !vms.iter().any(|vm| vm.is_called(wanted))
    {
        return Ok((choose(name, vms)?, Some(role.to_owned())));
    }
    Ok((choose(wanted, vms)?, None))
}

/// The one VM that matches a name, a process id or a QMP socket.
pub(crate) fn choose(wanted: &str, vms: &[Vm]) -> anyhow::Result<Vm> {
    let found: Vec<&Vm> = vms.iter().filter(|vm| vm.is_called(wanted)).collect();
    match &found[..] {
        [vm] => Ok((*vm).clone()),
        [] => Err(nobody(wanted, vms)),
        several => {
            let pids: Vec<String> = several.iter().map(|vm| vm.pid.to_string()).collect();
            bail!("several VMs match '{wanted}': name one by its process id, {}", pids.join(" or "))
        }
    }
}

/// The error that no VM matches.
pub(crate) fn nobody(wanted: &str, vms: &[Vm]) -> anyhow::Error {
    if vms.is_empty() {
        return anyhow::anyhow!("no virtual machine is visible to this user on this host");
    }
    let there: Vec<String> = vms.iter().map(Vm::label).collect();
    anyhow::anyhow!("there is no VM '{wanted}' on this host; its VMs are: {}", there.join(", "))
}

/// Those whose vCPUs are seen.
///
/// # Errors
/// If there are none.
pub(crate) fn all_with_vcpus(there: Vec<Vm>) -> anyhow::Result<Vec<Vm>> {
    let vms: Vec<Vm> = there.into_iter().filter(|vm| vm.vcpus().next().is_some()).collect();
    if vms.is_empty() {
        anyhow::bail!("no virtual machine with vCPUs is visible to this user on this host");
    }
    Ok(vms)
}

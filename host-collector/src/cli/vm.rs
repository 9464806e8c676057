//! How a command is told which VM.

use anyhow::bail;
use clap::Args;
use vslice_host::vm::Vm;

/// One VM, as a word or as an option.
#[derive(Debug, Args)]
pub(crate) struct VmArg {
    /// The VM: its name, its VMM's process id, or the path of its QMP socket (see `vslice ps`)
    #[arg(value_name = "VM")]
    word: Option<String>,
    /// The same
    #[arg(long = "vm", value_name = "VM", conflicts_with = "word")]
    option: Option<String>,
}

impl VmArg {
    /// What the user calls it, if one is named.
    pub(crate) fn wanted(&self) -> Option<&str> {
        self.word.as_deref().or(self.option.as_deref())
    }
}

/// The one VM that a user means by `VM` or `VM=PART`, and the part.
pub(crate) fn choose_with_part(wanted: &str, vms: &[Vm]) -> anyhow::Result<(Vm, Option<String>)> {
    // A name may have a `=` of its own.
    if let Some((name, part)) = wanted.rsplit_once('=')
        && !vms.iter().any(|vm| vm.is_called(wanted))
    {
        return Ok((choose(name, vms)?, Some(part.to_owned())));
    }
    Ok((choose(wanted, vms)?, None))
}

/// The one VM that a user means.
pub(crate) fn choose(wanted: &str, vms: &[Vm]) -> anyhow::Result<Vm> {
    let found: Vec<&Vm> = vms.iter().filter(|vm| vm.is_called(wanted)).collect();
    match &found[..] {
        [vm] => Ok((*vm).clone()),
        [] => Err(nobody(wanted, vms)),
        several => {
            let pids: Vec<String> = several.iter().map(|vm| vm.pid.to_string()).collect();
            bail!(
                "several VMs are called '{wanted}': name one by its process, {}",
                pids.join(" or ")
            )
        }
    }
}

/// That none of these VMs is called so.
pub(crate) fn nobody(wanted: &str, vms: &[Vm]) -> anyhow::Error {
    if vms.is_empty() {
        return anyhow::anyhow!("no virtual machine runs here, as far as this user can see");
    }
    let there: Vec<String> = vms.iter().map(Vm::label).collect();
    anyhow::anyhow!("there is no VM '{wanted}' on this host; there is: {}", there.join(", "))
}

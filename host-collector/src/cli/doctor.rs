//! `vslice doctor`: what this host offers.

use super::terminal::shown;
use super::vm::{VmArg, choose};
use crate::ps::Listing;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice_lab::doctor::examine;
use vslice_lab::doctor_vm::examine_vm;

/// The arguments of `vslice doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a VM the host is examined, for `vslice run` and `vslice attach`; with one, whether it can be attached \
to, and what a load in its guest needs. The last line says what can be done. Nothing is changed; of a VM only \
its qemu-ga is asked, and of a domain libvirt, for its XML.

Exit codes: 0 if VMs, or this VM, can be attached to, also where nothing can be run, for want of a guest image \
for instance (JSON: can_run, can_load); 1 if not, or if there is no such VM; 2 if the command line is wrong.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    vm: VmArg,
    /// Examine with this guest image, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// Print JSON (schema vslice.doctor/1)
    #[arg(long)]
    json: bool,
}

/// Exits with 1 if nothing can be attached to.
pub(super) fn execute(args: &DoctorArgs) -> anyhow::Result<u8> {
    let diagnosis = match args.vm.wanted() {
        Some(wanted) => examine_vm(&choose(wanted, &Listing::of_this_host().vms)?),
        None => examine(&args.image),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &diagnosis)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", shown(&diagnosis.render()))?;
    }
    Ok(u8::from(!diagnosis.can_attach))
}

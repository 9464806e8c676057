//! `vslice doctor`: what this host offers.

use super::terminal::shown;
use super::vm::{VmArg, choose};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice_host::vm::find_all;
use vslice_lab::doctor::examine;
use vslice_lab::doctor_vm::examine_vm;

/// The arguments of `vslice doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a VM, doctor checks what the host offers for `vslice run` and `vslice attach`. With a VM, it checks \
whether vslice can attach to it, and what a load in its guest needs. The last line says what can be done. \
Nothing is changed: doctor only queries the VM's qemu-ga, for a libvirt domain its XML, QEMU's monitor which \
thread is which iothread where their names do not tell, and Firecracker's API for disks that it was told of there.

Exit codes: 0 if vslice can attach to VMs, or to this VM, even if it cannot run plans, for example because \
there is no guest image (JSON: can_run, can_load); 1 if it cannot attach, or if there is no such VM; 2 if the \
command line is wrong.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    vm: VmArg,
    /// Guest image to check, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// Print JSON (schema vslice.doctor/1)
    #[arg(long)]
    json: bool,
}

/// Exits with 1 if vslice cannot attach.
pub(super) fn execute(args: &DoctorArgs) -> anyhow::Result<u8> {
    let diagnosis = match args.vm.wanted() {
        Some(wanted) => examine_vm(&choose(wanted, &find_all())?),
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

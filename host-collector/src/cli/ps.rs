//! `vslice ps`: the virtual machines of this host.

use super::terminal::shown;
use super::vm::{VmArg, nobody};
use crate::ps::{Listing, text};
use clap::Args;
use std::io::Write;

/// The arguments of `vslice ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is asked of the VMs: threads and affinities are as the kernel has them, disks as the VMM's \
command line says, so what was plugged in later is not shown; how their files are open is the kernel's word, where this user \
may see it. An ordinary user sees the VMs, and \
of those of others neither open files nor control groups.")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    vm: VmArg,
    /// Print JSON (schema vslice.ps/1)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &PsArgs) -> anyhow::Result<u8> {
    let mut listing = Listing::of_this_host();
    if let Some(wanted) = args.vm.wanted() {
        if !listing.vms.iter().any(|vm| vm.is_called(wanted)) {
            return Err(nobody(wanted, &listing.vms));
        }
        listing = listing.only(wanted);
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listing)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", shown(&text::render(&listing)))?;
    }
    Ok(0)
}

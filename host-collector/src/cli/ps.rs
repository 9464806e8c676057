//! `vslice ps`: the virtual machines of this host.

use super::terminal::shown;
use super::vm::{VmArg, nobody};
use crate::ps::{Listing, text};
use clap::Args;
use std::io::Write;

/// The arguments of `vslice ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
The VMs themselves are not queried. Threads and affinities come from the kernel. Disks come from the VMM's \
command line, so disks that were plugged in later are not shown; how their files are opened comes from the \
kernel, if this user may see it. An ordinary user does not see the open files and control groups of other \
users' VMs.")]
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

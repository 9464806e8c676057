//! `vslice ps`: the virtual machines of this host.

use anyhow::bail;
use clap::Args;
use std::io::Write;
use vslice::ps::{Listing, text};

/// The arguments of `vslice ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is asked of the VMs: threads and affinities are as the kernel has them, disks as the VMM's \
command line says, so what was plugged in later is not shown. An ordinary user sees the VMs, and \
of those of others neither open files nor control groups.")]
pub(crate) struct PsArgs {
    /// Only the VM with this name, or whose process has this id
    vm: Option<String>,
    /// Print JSON (schema vslice.ps/1)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &PsArgs) -> anyhow::Result<u8> {
    let mut listing = Listing::of_this_host();
    if let Some(wanted) = &args.vm {
        let labels: Vec<String> = listing.vms.iter().map(|vm| vm.label()).collect();
        listing = listing.only(wanted);
        if listing.vms.is_empty() {
            let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            bail!("there is no VM '{wanted}' on this host; there is: {there}");
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listing)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text::render(&listing))?;
    }
    Ok(0)
}

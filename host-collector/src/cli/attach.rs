//! `vslice attach`: record VMs that are there already.

use super::run::{default_output, interrupts, report, watcher};
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use vslice::lab::quantity;
use vslice::ps::Listing;
use vslice::run::{AttachOptions, Attachment, EvidenceSetting, sentence};
use vslice::vmm::found::FoundVm;

/// The arguments of `vslice attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing of the VMs is changed: no affinity, no monitor, no agent. So there are no requests in the \
report, but why each vCPU left its pCPU, for how long, who had it instead, and who held QEMU's big \
lock. Ctrl-C ends the recording in order.

Examples:
  vslice ps                             which VMs there are
  vslice attach web1 --duration 10s     ten seconds of one of them
  vslice attach web1 db1 --json         two at once, until Ctrl-C")]
pub(crate) struct AttachArgs {
    /// Each by its name, its VMM's process id, or the path of its QMP socket (see `vslice ps`)
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
    /// Record for so long, as 10s or 2min; without it until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Make the run directory here, instead of runs/attach-SECONDS
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// See the VMs' threads as well as this, or end with an error; labelled in the report
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    evidence: EvidenceSetting,
    /// Record each exit of each vCPU, under KVM: it costs time on the vCPUs' pCPUs
    #[arg(long)]
    exits: bool,
    /// Print the summary as JSON (schema vslice.summary/2)
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    match quantity::parse_duration_ms(text) {
        Ok(0) => Err("nothing is recorded in no time".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn execute(args: &AttachArgs) -> anyhow::Result<u8> {
    let listing = Listing::of_this_host();
    let vms = args.vms.iter().map(|wanted| choose(wanted, &listing.vms));
    let vms = vms.collect::<anyhow::Result<Vec<FoundVm>>>()?;
    for (place, vm) in vms.iter().enumerate() {
        if vms[..place].iter().any(|other| other.pid == vm.pid) {
            bail!("{} is named twice", vm.label());
        }
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output("attach")?,
    };
    let interrupted = interrupts()?;
    let options = AttachOptions {
        vms: &vms,
        output: &output,
        duration: args.duration,
        evidence: args.evidence,
        exits: args.exits,
        interrupted: &interrupted,
    };
    let attachment = Attachment::prepare(options)
        .map_err(|error| anyhow::anyhow!("nothing was recorded: {}", sentence(&error)))?;
    let recorded = {
        let mut watcher = watcher();
        attachment.record(watcher.as_mut())
    };
    // Whatever was recorded is reported, also if it ended early.
    let reported = report(&output, args.json);
    recorded.with_context(|| {
        format!("the recording ended early, what there is of it is in {}", output.display())
    })?;
    reported.map(|()| 0)
}

/// The one VM that a user means.
pub(super) fn choose(wanted: &str, vms: &[FoundVm]) -> anyhow::Result<FoundVm> {
    let found: Vec<&FoundVm> = vms.iter().filter(|vm| vm.is_called(wanted)).collect();
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
pub(super) fn nobody(wanted: &str, vms: &[FoundVm]) -> anyhow::Error {
    if vms.is_empty() {
        return anyhow::anyhow!("no virtual machine runs here, as far as this user can see");
    }
    let there: Vec<String> = vms.iter().map(FoundVm::label).collect();
    anyhow::anyhow!("there is no VM '{wanted}' on this host; there is: {}", there.join(", "))
}

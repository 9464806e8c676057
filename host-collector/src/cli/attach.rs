//! `vslice attach`: record VMs that are there already.

use super::report::Form;
use super::run::{default_output, interrupts, report, watcher};
use super::vm::choose_with_part;
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use vslice::guest::agent_file::AgentFile;
use vslice::lab::plan::Plan;
use vslice::lab::quantity;
use vslice::ps::Listing;
use vslice::run::{AttachOptions, Attachment, Casting, EvidenceSetting, Load, NotMeasured};
use vslice_core::text::sentence;
use vslice_host::vm::Vm;

/// The arguments of `vslice attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
Unless --load or --pin asks for it, nothing of the VMs is changed: no affinity, no monitor, no agent. \
So there are no requests in the report, but why each vCPU left its pCPU, for how long, who had it \
instead, and who held QEMU's big lock. Ctrl-C ends the recording in order.

With --load, vslice-agent is started in each guest through its qemu-ga, runs the hogs and readers of \
the plan's VM of that name (or of the one after =), and each request is in the report. The guest needs a \
way to this host: a vhost-vsock, or a virtio-serial port named vslice.agent (`vslice doctor --vm VM`), or \
--plug plugs one in meanwhile. What comes to nothing leaves no files of a run.

Several VMs are one recording: when one of them ends, it ends for all, with what there is and exit code 1.

Examples:
  vslice ps                             which VMs there are
  vslice attach web1 --duration 10s     ten seconds of one of them
  vslice attach web1 db1 --json         two at once, until Ctrl-C
  vslice attach web1=vm1 --load demo    with the demo's hog and reader in the guest
  vslice attach web1=vm1 --load demo --plug
                                        over a port that is plugged in for it
  vslice attach web1=vm1 --load demo --agent ./vslice-agent --target /dev/vdb
                                        with this agent, which reads the guest's second disk")]
pub(crate) struct AttachArgs {
    /// Each by its name, its VMM's process id, or the path of its QMP socket (see `vslice ps`), with
    /// the plan's VM that it is to be, if the names differ
    #[arg(required_unless_present = "also", value_name = "VM[=PART]")]
    vms: Vec<String>,
    /// The same; can be said several times
    #[arg(long = "vm", id = "also", value_name = "VM[=PART]")]
    also: Vec<String>,
    /// Record for so long, as 10s, 1.5m or 2h; without it until Ctrl-C, or until all is read
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Make the run directory here, instead of runs/attach-SECONDS (since 1970)
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// See the VMs' threads as well as this, or end with an error; labelled in the report
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    evidence: EvidenceSetting,
    /// Record each exit of each vCPU, under KVM: it costs time on the vCPUs' pCPUs
    #[arg(long)]
    exits: bool,
    /// Run this plan's hogs and readers in the guests; the plan's name or a TOML file
    #[arg(long, value_name = "PLAN")]
    load: Option<String>,
    /// Upload this agent and remove it again, instead of starting the guests' own
    #[arg(long, value_name = "FILE", requires = "load")]
    agent: Option<PathBuf>,
    /// Where a VM has no way to this host, plug a virtio-serial port into it by QMP, and take it out again
    /// afterwards; one that was plugged in before is found
    #[arg(long, requires = "load")]
    plug: bool,
    /// Let readers read this file or block device in their guests, instead of the only disk
    #[arg(long, value_name = "PATH", requires = "load")]
    target: Option<String>,
    /// Read this much in all, as in 64MiB, instead of what the plan says
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes, requires = "load")]
    total: Option<u64>,
    /// Pin the VMs' threads to the pCPUs of this plan while it is recorded, and put them back
    #[arg(long, value_name = "PLAN")]
    pin: Option<String>,
    #[command(flatten)]
    form: Form,
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
    let chosen =
        args.vms.iter().chain(&args.also).map(|wanted| choose_with_part(wanted, &listing.vms));
    let chosen = chosen.collect::<anyhow::Result<Vec<(Vm, Option<String>)>>>()?;
    let (vms, parts): (Vec<Vm>, Vec<Option<String>>) = chosen.into_iter().unzip();
    for (place, vm) in vms.iter().enumerate() {
        if vms[..place].iter().any(|other| other.pid == vm.pid) {
            bail!("{} is named twice", vm.label());
        }
    }
    let load = load(args, &vms, &parts)?;
    let casting = |name: &String| -> anyhow::Result<Casting> {
        Ok(Casting::new(Plan::load_parts(name)?, &vms, &parts)?)
    };
    let pin = args.pin.as_ref().map(casting).transpose()?;
    if load.is_none() && pin.is_none() && parts.iter().any(Option::is_some) {
        bail!("VM=PART names a part of a plan: say which plan, with --load or --pin");
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
        load: load.as_ref(),
        pin: pin.as_ref(),
        interrupted: &interrupted,
    };
    let mut watcher = watcher();
    let attachment = Attachment::prepare(options, watcher.as_mut())
        .map_err(|error| anyhow::anyhow!("nothing was recorded: {}", sentence(&error)))?;
    let recorded = attachment.record(watcher.as_mut());
    drop(watcher);
    // Whatever was recorded is reported, also if it ended early.
    let recorded = match recorded {
        Err(NotMeasured(error)) => {
            anyhow::bail!("nothing was recorded: {}", sentence(&error));
        }
        Ok(recorded) => recorded,
    };
    let reported = report(&output, args.form);
    recorded.with_context(|| {
        format!("the recording ended early, what there is of it is in {}", output.display())
    })?;
    reported.map(|()| 0)
}

fn load(args: &AttachArgs, vms: &[Vm], parts: &[Option<String>]) -> anyhow::Result<Option<Load>> {
    let Some(name) = &args.load else { return Ok(None) };
    let mut plan = Plan::load_parts(name)?;
    if let Some(total_bytes) = args.total {
        let readers = plan.vms.iter_mut().filter_map(|vm| vm.reader.as_mut());
        readers.for_each(|reader| reader.total_bytes = total_bytes);
        plan.check_parts()?;
    }
    let agent = args.agent.as_deref().map(AgentFile::read).transpose()?;
    let casting = Casting::new(plan, vms, parts)?;
    Ok(Some(Load { casting, agent, target: args.target.clone(), plug: args.plug }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_what_becomes_of_the_others_when_one_vm_ends() {
        let command = AttachArgs::augment_args(clap::Command::new("attach"));
        let help = command.clone().render_long_help().to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("when one of them ends, it ends for all"), "{help}");
    }
}

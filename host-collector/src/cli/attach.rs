//! `vslice attach`: record VMs that are already running.

use super::complete;
use super::exports::Exports;
use super::report::Form;
use super::rotation::{self, RotationArgs};
use super::run::{default_output, interrupts, report, watcher};
use super::vm::{all_with_vcpus, choose_with_role};
use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args};
use clap_complete::ArgValueCompleter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use vslice_core::text::sentence;
use vslice_host::host::online_pcpus;
use vslice_host::pin::VmPins;
use vslice_host::vm::{Vm, find_all};
use vslice_lab::plan::{LEASE_MS_DEFAULT, Plan};
use vslice_lab::{RoleAssignment, quantity};
use vslice_record::attached::{AgentLoad, AttachedPlans, AttachedVms};
use vslice_record::guest::agent_file::AgentFile;
use vslice_record::watcher::Watcher;
use vslice_record::{
    EndedEarly, EvidencePlan, EvidenceSetting, Recording, RecordingError, RecordingOptions,
    UntilOver, leftovers, names_of,
};
use vslice_spec::{ObserveSpec, WorkloadSpec};

/// The arguments of `vslice attach`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("agents").args(["load", "observe"]).multiple(true))]
#[command(after_help = "\
Without --load, --observe or --pin, the VMs are not changed: no affinity is set, no monitor is used, no agent is \
started. The report then has no requests, but it says why each vCPU left its pCPU, for how long, who ran \
there instead, who held QEMU's big lock, and how long the host took for each I/O of its disks and who was then \
missing to take it. Ctrl-C ends the recording in order.

With --load, vslice-agent is started in each guest through qemu-ga. It runs the hogs and readers of the \
plan's VM of the same name (or of the ROLE after =), and the report has every request. The guest needs a \
transport to this host: a vhost-vsock, or a virtio-serial port named vslice.agent (see `vslice doctor --vm \
VM`), which --plug adds for the recording. If nothing could be recorded, no files are left.

With --observe, the agent records the block requests of the guest's own load, whoever makes them: each read, \
write and flush, by which process, and what the host did to its vCPUs meanwhile. It starts no load, unless \
--load is given too. The guest needs what it needs for --load, and an agent that runs as root.

Several VMs share one recording: when one of them ends, the recording ends for all. The report then has \
what was recorded, and the exit code is 1. With --all, it goes on until none is left.

With --rotate, one recording follows the other in bounded space, and each looks for the VMs anew. The next one is \
started first, and the former ends once it records, so that no moment is missed.

Examples:
  vslice ps                             the VMs of this host
  vslice attach web1 --duration 10s     record one of them for ten seconds
  vslice attach web1 db1 --json         record two at once, until Ctrl-C
  vslice attach --all --rotate 5min --keep 2h
                                        record always, and keep the last two hours
  vslice attach db1 --observe --agent ./vslice-agent
                                        explain the requests of what runs in the guest
  vslice attach db1 --observe --slower-than 5ms --duration 10m
                                        only the slow ones, for long
  vslice attach web1=vm1 --load demo    run the demo's hog and reader in the guest
  vslice attach web1=vm1 --load demo --plug
                                        connect over a port that is plugged in for it
  vslice attach web1=vm1 --load demo --agent ./vslice-agent --target /dev/vdb
                                        upload this agent, which reads the guest's second disk")]
pub(crate) struct AttachArgs {
    /// A VM: its name, its VMM's process id, or the path of its QMP socket (see `vslice ps`); ROLE is the
    /// plan's VM whose part it takes, if the names differ
    #[arg(
        required_unless_present_any = ["also", "all"],
        value_name = "VM[=ROLE]",
        add = ArgValueCompleter::new(complete::vms)
    )]
    vms: Vec<String>,
    /// Same as the argument; can be repeated
    #[arg(long = "vm", id = "also", value_name = "VM[=ROLE]")]
    also: Vec<String>,
    /// Record all VMs whose vCPUs are seen, as long as one of them is there
    #[arg(long, conflicts_with_all = ["vms", "also"])]
    pub(super) all: bool,
    /// How long to record, such as 10s, 1.5m or 2h [default: until Ctrl-C, or until the readers have
    /// finished]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Create the run directory here instead of runs/attach-SECONDS (since 1970)
    #[arg(long, short, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// How the VMs' threads are observed; an error if this host does not allow it. The report states it
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    pub(super) evidence: EvidenceSetting,
    /// Record every exit of every vCPU (KVM only); this takes time on the vCPUs' pCPUs
    #[arg(long)]
    pub(super) exits: bool,
    /// Only record; `vslice report DIR` makes the report, here or elsewhere
    #[arg(long, conflicts_with_all = ["Form", "Exports"])]
    no_report: bool,
    /// Run the hogs and readers of this plan (a built-in one or a TOML file) in the guests
    #[arg(long, value_name = "PLAN")]
    load: Option<String>,
    /// Observe the block requests of the guests, whoever makes them
    #[arg(long)]
    observe: bool,
    /// Observe only these disks of the guests, by their names there, such as vda,vdb
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "observe")]
    devices: Vec<String>,
    /// Have only requests sent that took at least this long, such as 5ms; the others are counted
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration_us, requires = "observe")]
    slower_than: Option<u64>,
    /// Upload this agent and remove it afterwards, instead of starting the one installed in the guests
    #[arg(long, value_name = "FILE", requires = "agents")]
    agent: Option<PathBuf>,
    /// If a VM has no transport to this host, plug in a virtio-serial port by QMP and unplug it
    /// afterwards; a port that was plugged in before is used as it is
    #[arg(long, requires = "agents")]
    plug: bool,
    /// File or block device that the readers read in their guests, instead of the only disk
    #[arg(long, value_name = "PATH", requires = "load")]
    target: Option<String>,
    /// Read this much in total, such as 64MiB, instead of the plan's total
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes, requires = "load")]
    total: Option<u64>,
    /// Pin the VMs' threads to the pCPUs of this plan during the recording, and restore them afterwards
    #[arg(long, value_name = "PLAN")]
    pin: Option<String>,
    #[command(flatten)]
    pub(super) rotation: RotationArgs,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    exports: Exports,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match quantity::parse_duration_ms(text) {
        Ok(0) => Err("the duration must be longer than 0".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn execute(args: &AttachArgs) -> anyhow::Result<u8> {
    if let Some(interval) = args.rotation.rotate {
        return rotation::execute(args, interval);
    }
    // Before the VMs are looked at: what was left behind may be their threads' affinities.
    leftovers::undo(&mut *watcher());
    let (vms, roles) = chosen(args)?;
    let plans = Plans::of(args, &vms, &roles)?;
    if plans.load.is_none() && plans.pin.is_none() && roles.iter().any(Option::is_some) {
        bail!("VM=ROLE needs the plan that the role belongs to: name it with --load or --pin");
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output("attach")?,
    };
    let interrupted = interrupts()?;
    let mut watcher = watcher();
    let recorded = record(args, &vms, &plans, &output, &interrupted, watcher.as_mut());
    drop(watcher);
    // Whatever was recorded is reported, also if it ended early.
    let recorded = recorded.map_err(nothing_recorded)?;
    let reported = match args.no_report {
        true => Ok(()),
        false => report(&output, args.form, &args.exports),
    };
    recorded.with_context(|| {
        format!("the recording ended early; what was recorded is in {}", output.display())
    })?;
    reported.map(|()| 0)
}

/// The VMs to record, each with its role if it has one.
fn chosen(args: &AttachArgs) -> anyhow::Result<(Vec<Vm>, Vec<Option<String>>)> {
    let there = find_all();
    if args.all {
        let vms = all_with_vcpus(there)?;
        let roles = vec![None; vms.len()];
        return Ok((vms, roles));
    }
    let chosen = args.wanted().map(|wanted| choose_with_role(wanted, &there));
    let chosen = chosen.collect::<anyhow::Result<Vec<(Vm, Option<String>)>>>()?;
    let (vms, roles): (Vec<Vm>, Vec<Option<String>>) = chosen.into_iter().unzip();
    for (place, vm) in vms.iter().enumerate() {
        if vms[..place].iter().any(|other| other.pid == vm.pid) {
            bail!("{} is named twice", vm.label());
        }
    }
    Ok((vms, roles))
}

/// Records the VMs. The inner result is the outcome of a recording that did measure.
///
/// # Errors
/// Fails with the reason why nothing was measured. No file of a run is left then, and no directory that
/// was not there before.
fn record(
    args: &AttachArgs,
    vms: &[Vm],
    plans: &Plans,
    output: &Path,
    interrupted: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Result<(), RecordingError>, RecordingError> {
    let mut attached = AttachedVms::new(vms, plans.agents.clone(), watcher)?;
    if args.all {
        attached = attached.until_none_is_left();
    }
    let evidence = EvidencePlan::of_host(args.evidence)?;
    let (pcpus, collector_pcpu) = match &plans.pin {
        Some(assignment) => {
            let vcpus = assignment.roles().flat_map(|role| role.vcpu_pcpus.iter().copied());
            (vcpus.collect(), Some(assignment.plan.collector_pcpu))
        }
        None => attached.pcpus(&online_pcpus()?),
    };
    let options = RecordingOptions {
        evidence,
        exits: args.exits,
        pcpus,
        collector_pcpu,
        pins: plans.pins.clone(),
        asks_monitors: false,
        live: None,
        until: UntilOver {
            duration: args.duration,
            is_interrupt_the_end: true,
            announcement: announcement(vms, args.duration, plans.have_reader()),
        },
        interrupted,
    };
    let recording = Recording::prepare(options, output)?;
    let facts = attached.facts(plans.recorded(vms));
    match recording.record(facts, &mut attached, watcher) {
        Ok(()) => Ok(Ok(())),
        Err(EndedEarly { error, is_measured: true }) => Ok(Err(*error)),
        Err(EndedEarly { error, is_measured: false }) => {
            if let Some(dir) = recording.dir() {
                dir.discard();
            }
            Err(*error)
        }
    }
}

fn nothing_recorded(error: impl std::error::Error) -> anyhow::Error {
    anyhow!("nothing was recorded: {}", sentence(&error))
}

fn announcement(vms: &[Vm], duration: Option<Duration>, has_reader: bool) -> String {
    let names: Vec<String> = names_of(vms).iter().map(|name| name.as_str().to_owned()).collect();
    let until = match duration {
        Some(duration) => format!("for {} s; Ctrl-C ends it earlier", duration.as_secs_f64()),
        None if has_reader => "until the readers have finished; Ctrl-C ends it earlier".to_owned(),
        None => "until Ctrl-C".to_owned(),
    };
    format!("recording {} {until}", names.join(" and "))
}

/// What the plans of --load and --pin mean for the VMs.
struct Plans {
    /// The plan of the load, if there is one.
    load: Option<RoleAssignment>,
    /// The load as the agents receive it.
    agents: Option<AgentLoad>,
    /// The plan of the pins, if there is one.
    pin: Option<RoleAssignment>,
    /// The pins that it means for each VM.
    pins: Option<Vec<VmPins>>,
}

impl Plans {
    fn of(args: &AttachArgs, vms: &[Vm], roles: &[Option<String>]) -> anyhow::Result<Plans> {
        let load = load(args, vms, roles)?;
        let agent = args.agent.as_deref().map(AgentFile::read).transpose()?;
        let workloads = match &load {
            Some(assignment) => {
                let workloads = assignment.workloads(vms, args.target.as_deref());
                Some(workloads.map_err(nothing_recorded)?)
            }
            None => None,
        };
        let workloads = match args.observe {
            true => Some(observing(workloads, &args.observe_spec(), vms)?),
            false => workloads,
        };
        let agents = workloads.map(|workloads| AgentLoad { workloads, agent, plug: args.plug });
        let assign = |name: &String| -> anyhow::Result<RoleAssignment> {
            Ok(RoleAssignment::new(Plan::load_parts(name)?, vms, roles)?)
        };
        let pin = args.pin.as_ref().map(assign).transpose()?;
        let pins = match &pin {
            Some(assignment) => {
                let pins = assignment.pins(vms).map_err(nothing_recorded)?;
                assignment.plan.check_host(&online_pcpus()?).map_err(nothing_recorded)?;
                Some(pins)
            }
            None => None,
        };
        Ok(Plans { load, agents, pin, pins })
    }

    /// Whether a reader's end is the recording's.
    fn have_reader(&self) -> bool {
        let mut workloads = self.agents.iter().flat_map(|load| &load.workloads);
        workloads.any(|workload| workload.reader.is_some())
    }

    /// The plans as the manifest records them.
    fn recorded(&self, vms: &[Vm]) -> AttachedPlans {
        let json = |assignment: &Option<RoleAssignment>| {
            let plan = assignment.as_ref().map(|assignment| &assignment.plan);
            serde_json::to_value(plan).unwrap_or_default()
        };
        let all = [("load", &self.load), ("pins", &self.pin)];
        let line = |(what, assignment): (&str, &Option<RoleAssignment>)| {
            Some(assignment.as_ref()?.line(what, vms))
        };
        AttachedPlans {
            load: json(&self.load),
            pin: json(&self.pin),
            roles: all.into_iter().filter_map(line).collect(),
        }
    }
}

impl AttachArgs {
    /// The VMs as they were named.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &String> {
        self.vms.iter().chain(&self.also)
    }

    fn observe_spec(&self) -> ObserveSpec {
        ObserveSpec {
            devices: self.devices.iter().map(|name| disk_name(name)).collect(),
            slower_than_us: self.slower_than.unwrap_or(0),
        }
    }
}

/// A disk as the kernel calls it, of one that people may call by its path.
fn disk_name(name: &str) -> String {
    name.strip_prefix("/dev/").unwrap_or(name).to_owned()
}

/// The workloads of a load with what is observed, or such as only observe.
///
/// # Errors
/// What no agent would take.
pub(super) fn observing(
    load: Option<Vec<WorkloadSpec>>,
    observe: &ObserveSpec,
    vms: &[Vm],
) -> anyhow::Result<Vec<WorkloadSpec>> {
    let lease_ms = u32::try_from(LEASE_MS_DEFAULT)?;
    let load = load.unwrap_or_else(|| vec![WorkloadSpec::idle(lease_ms); vms.len()]);
    let observing = |(workload, vm): (WorkloadSpec, &Vm)| {
        let workload = workload.observing(observe.clone());
        let vcpus_count = u16::try_from(vm.vcpus().count()).unwrap_or(u16::MAX);
        workload.validate(vcpus_count).map_err(nothing_recorded)?;
        Ok(workload)
    };
    load.into_iter().zip(vms).map(observing).collect()
}

fn load(
    args: &AttachArgs,
    vms: &[Vm],
    roles: &[Option<String>],
) -> anyhow::Result<Option<RoleAssignment>> {
    let Some(name) = &args.load else { return Ok(None) };
    let mut plan = Plan::load_parts(name)?;
    if let Some(total_bytes) = args.total {
        let readers = plan.vms.iter_mut().filter_map(|vm| vm.reader.as_mut());
        readers.for_each(|reader| reader.total_bytes = total_bytes);
        plan.check_parts()?;
    }
    Ok(Some(RoleAssignment::new(plan, vms, roles)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::{Tid, VcpuId};
    use vslice_host::vm::VmThread;
    use vslice_spec::ClockChoice;
    use vslice_trace::thread::ThreadRole;

    #[test]
    fn the_help_says_that_one_vm_that_ends_ends_the_recording_for_all() {
        let command = AttachArgs::augment_args(clap::Command::new("attach"));
        let help = command.clone().render_long_help().to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("when one of them ends, the recording ends for all"), "{help}");
    }

    #[test]
    fn what_is_observed_is_asked_of_each_agent_with_or_without_a_load() {
        let vcpu = |index| {
            let role = ThreadRole::Vcpu(VcpuId(index));
            VmThread::new(Tid(10), "CPU 0/KVM", role, Vec::new())
        };
        let vms =
            ["db1", "db2"].map(|name| Vm { threads: vec![vcpu(0), vcpu(1)], ..Vm::named(name) });
        let (devices, slower_than_us) = (vec![disk_name("/dev/vda")], 5_000);
        let observe = ObserveSpec { devices, slower_than_us };
        let alone = observing(None, &observe, &vms).expect("possible");
        assert_eq!(alone.len(), 2);
        assert_eq!(
            alone[1].observe.as_ref().map(|spec| &spec.devices[..]),
            Some(&["vda".to_owned()][..])
        );
        assert!(alone.iter().all(|workload| workload.hogs.is_empty() && workload.reader.is_none()));
        let load = WorkloadSpec { hogs: vec![1], clock: ClockChoice::Tsc, ..alone[0].clone() };
        let with_load = observing(Some(vec![load]), &observe, &vms[..1]).expect("possible");
        assert_eq!(
            (&with_load[0].hogs[..], with_load[0].clock),
            (&[1][..], ClockChoice::MonotonicRaw)
        );
        let no_disk = ObserveSpec { devices: vec!["a b".to_owned()], slower_than_us: 0 };
        let said = observing(None, &no_disk, &vms).unwrap_err().to_string();
        assert!(
            said.starts_with("nothing was recorded: ") && said.contains("no name of a disk"),
            "{said}"
        );
    }
}

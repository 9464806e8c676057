//! Against waits for a pCPU: by who had it meanwhile.

use super::asked::Asked;
use super::command::{self, Command};
use super::room::{self, Room, room};
use super::setup::Machine;
use super::{AdviceRow, Against, Draft, Figure};
use crate::summary::causes::{Kind, NEARLY_ALL};
use crate::summary::group::{ClassAntagonistGroup, GroupKind};
use crate::summary::model::{ClassAntagonist, Relation, Vcpu};
use crate::summary::reason::OffReason;
use crate::summary::totals::{share, sum};
use crate::summary::verdict::DOMINANT_SHARE;
use crate::summary::what_if::WithoutGroup;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::timeline::Reason;
use vslice_core::units::{PcpuId, Tid};
use vslice_spec::quantity::{duration, whole_percent};
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::Accelerator;

/// Letters of a name in a sentence at most; the tables have it whole.
const NAME_CHARS_MAX: usize = 60;

/// Halts that take longer on the average are not worth polling for: KVM would burn a pCPU for a wakeup of some
/// microseconds.
const POLLED_HALT_NS_MAX: u64 = 1_000_000;

/// The step in which a length of polling is given: KVM's own first one (`halt_poll_ns_grow_start`,
/// Documentation/virt/kvm/halt-polling.rst).
const HALT_POLL_STEP_NS: u64 = 10_000;

/// A row for each group without which enough would be gained.
pub(super) fn rows(asked: &Asked<'_>) -> Vec<AdviceRow> {
    let groups = asked.what_if.antagonist_groups.iter().enumerate();
    let rows = groups.filter_map(|(place, row)| {
        let gain = asked.gain(&row.without)?;
        let asked = asked.at(gain.percentile);
        let seen = Seen::of(&asked, row)?;
        let draft = match row.kind {
            GroupKind::OtherVm => seen.other_vm(),
            GroupKind::OwnVm => seen.own_vm(),
            GroupKind::ControlGroup => seen.control_group(),
            GroupKind::KernelThread => seen.kernel_thread(),
            GroupKind::Collector | GroupKind::OtherVslice => seen.vslice(),
            // Who it is is not known, so it is not known either what would take it away.
            GroupKind::Unknown => return None,
        };
        Some(asked.row(draft, &format!("what_if/antagonist_groups/{place}"), gain))
    });
    rows.collect()
}

/// Against waits for a pCPU of which no group alone had enough.
pub(super) fn wait(asked: &Asked<'_>, has_antagonist: bool) -> Option<Draft> {
    if has_antagonist {
        return None;
    }
    let class = asked.class;
    if share(class.idle_ns, class.wait_ns) >= DOMINANT_SHARE {
        return idle_pcpu(asked);
    }
    let waiting: BTreeSet<PcpuId> = class.antagonist_groups.iter().map(|row| row.pcpu).collect();
    let share = whole_percent(asked.share_of(Kind::PcpuWait));
    let mut because = format!(
        "{} waited for a pCPU for {share} of their time, and no group of antagonists alone had enough of it",
        asked.which()
    );
    let mut figures = asked.figures_of_kind(Kind::PcpuWait);
    let (vm, vcpu) = match asked.vcpus.as_slice() {
        [only] => only,
        _ => {
            return Some(Draft {
                against: Against::PcpuWait,
                action: "Give the VM's vCPUs pCPUs of their own".to_owned(),
                because,
                figures,
                command: Err(
                    "several vCPUs made the requests, and which of them to move is a choice"
                        .to_owned(),
                ),
            });
        }
    };
    let own = asked.summary.vcpus.iter().find(|row| (&row.vm, row.vcpu) == (vm, *vcpu));
    let found = own.ok_or_else(|| "the vCPU's thread is not known".to_owned());
    let found = found.and_then(|own| Ok((own.tid, room(asked, own.on_pcpu_ns, &waiting)?)));
    let command = found.and_then(|(tid, Room { pcpus, words, figures: idle })| {
        because.push_str(&format!("; {words}"));
        figures.extend(idle);
        let machine = asked.machine().ok_or("the VM's threads are not known")?;
        command::pin(machine, tid, &pcpus)
    });
    let what = format!("Give {} {vcpu} a pCPU of its own", short(vm));
    Some(Draft { against: Against::PcpuWait, action: what, because, figures, command })
}

/// Who wakes a pCPU that is idle waits for that, too. Only KVM can keep it awake.
fn idle_pcpu(asked: &Asked<'_>) -> Option<Draft> {
    let class = asked.class;
    if asked.accelerator() != Some(Accelerator::Kvm) {
        return None;
    }
    let is_own =
        |row: &&Vcpu| asked.vcpus.iter().any(|(vm, vcpu)| (vm, *vcpu) == (&row.vm, row.vcpu));
    let halts = asked.summary.vcpus.iter().filter(is_own).flat_map(|row| &row.off_cpu);
    let halts: Vec<_> = halts.filter(|row| row.reason == OffReason::Left(Reason::Halt)).collect();
    let count = sum(halts.iter().map(|row| row.count));
    let mean_ns = sum(halts.iter().map(|row| row.total_ns)).checked_div(count)?;
    let length_ns = mean_ns.div_ceil(HALT_POLL_STEP_NS) * HALT_POLL_STEP_NS;
    if asked.setup.halt_poll_ns.is_some_and(|set_ns| set_ns >= length_ns) {
        return None;
    }
    let command = if mean_ns > POLLED_HALT_NS_MAX {
        Err(format!("KVM would have to poll for {}, the mean of its halts", duration(mean_ns)))
    } else {
        command::halt_poll(length_ns)
    };
    let because = format!(
        "the pCPU was idle for {} of the time for which {} waited for it to be woken, and a halt took {} on the average",
        whole_percent(share(class.idle_ns, class.wait_ns)),
        asked.which(),
        duration(mean_ns)
    );
    let figures = [("idle_ns", class.idle_ns), ("wait_ns", class.wait_ns)];
    let what = "Let KVM poll before a halted vCPU sleeps, so that its pCPU stays awake".to_owned();
    let figures = figures.into_iter().map(|(key, value)| asked.class_figure(key, value)).collect();
    Some(Draft { against: Against::IdlePcpu, action: what, because, figures, command })
}

/// A group that ran while requests of the class waited.
struct Seen<'a> {
    asked: &'a Asked<'a>,
    name: &'a str,
    path: Option<&'a str>,
    /// Its rows, with their places.
    rows: Vec<(usize, &'a ClassAntagonistGroup)>,
    ran_ns: u64,
    pcpus: BTreeSet<PcpuId>,
    /// Its thread that ran longest, and for how long.
    longest: Option<(&'a ClassAntagonist, u64)>,
}

impl<'a> Seen<'a> {
    fn of(asked: &'a Asked<'_>, group: &'a WithoutGroup) -> Option<Seen<'a>> {
        let rows = asked.class.antagonist_groups.iter().enumerate();
        let rows = rows.filter(|(_, row)| {
            (row.group.kind, &row.group.name, &row.group.path)
                == (group.kind, &group.name, &group.path)
                && row.group.ran_ns > 0
        });
        let rows: Vec<_> = rows.collect();
        let threads = asked.class.antagonists.iter().filter(|row| is_of(row, group));
        let threads: Vec<&ClassAntagonist> = threads.collect();
        let ran_ns = |tid: Tid| {
            let of_thread = threads.iter().filter(|row| row.antagonist.thread.tid == tid);
            sum(of_thread.map(|row| row.antagonist.ran_ns))
        };
        let longest = threads.iter().map(|row| (*row, ran_ns(row.antagonist.thread.tid)));
        let seen = Seen {
            asked,
            name: &group.name,
            path: group.path.as_deref(),
            ran_ns: sum(rows.iter().map(|(_, row)| row.group.ran_ns)),
            pcpus: mostly(&rows),
            longest: longest.max_by_key(|(_, ran_ns)| *ran_ns).filter(|(_, ran_ns)| *ran_ns > 0),
            rows,
        };
        (!seen.rows.is_empty()).then_some(seen)
    }

    /// The thread that made up this share of what the group ran.
    fn thread(&self, share_min: f64) -> Option<&'a ClassAntagonist> {
        let (row, ran_ns) = self.longest?;
        (share(ran_ns, self.ran_ns) >= share_min).then_some(row)
    }

    /// What it is called: by its thread where next to nothing else of it ran.
    fn subject(&self) -> String {
        if let Some(only) = self.thread(NEARLY_ALL) {
            return short(&only.antagonist.thread.name);
        }
        let longest = self.rows.iter().max_by_key(|(_, row)| row.group.ran_ns);
        short(&longest.map_or(self.name.into(), |(_, row)| row.group.subject()))
    }

    fn because(&self, subject: &str) -> String {
        let victims: BTreeSet<String> = self
            .rows
            .iter()
            .map(|(_, row)| format!("{} {}", short(&row.victim_vm), row.victim_vcpu))
            .collect();
        let victims = match victims.len() {
            1 | 2 => victims.into_iter().collect::<Vec<_>>().join(" and "),
            number => format!("{number} vCPUs"),
        };
        format!(
            "{subject} ran there for {} of the time of {}, while {victims} waited for it",
            whole_percent(self.asked.share(self.ran_ns)),
            self.asked.which()
        )
    }

    fn figures(&self) -> Vec<Figure> {
        let rows = self.rows.iter().map(|(place, row)| {
            self.asked.class_figure(&format!("antagonist_groups/{place}/ran_ns"), row.group.ran_ns)
        });
        rows.chain([self.asked.class_figure("latency_ns", self.asked.class.latency_ns)]).collect()
    }

    /// How long it ran in the whole run: of a recorded vCPU all of it, of others what the requests' vCPUs waited for.
    fn needed_ns(&self) -> u64 {
        let vcpus = &self.asked.summary.vcpus;
        let thread = self.thread(NEARLY_ALL).map(|row| row.antagonist.thread.tid);
        if let Some(vcpu) = vcpus.iter().find(|vcpu| Some(vcpu.tid) == thread) {
            return vcpu.on_pcpu_ns;
        }
        let is_asked = |row: &&Vcpu| {
            self.asked.vcpus.iter().any(|(vm, vcpu)| (vm, *vcpu) == (&row.vm, row.vcpu))
        };
        let groups = vcpus.iter().filter(is_asked).flat_map(|vcpu| &vcpu.antagonist_groups);
        let own =
            groups.filter(|group| group.name == self.name && group.path.as_deref() == self.path);
        sum(own.map(|group| group.ran_ns))
    }

    /// The command that gives it other pCPUs, and where there was no room the one that gives it less weight.
    fn draft(
        &self,
        against: Against,
        move_to: impl FnOnce(&Room) -> Command,
        weigh_less: impl FnOnce() -> Command,
    ) -> Draft {
        let (subject, pcpus) = (self.subject(), room::named(&self.pcpus));
        let mut because = self.because(&subject);
        let mut figures = self.figures();
        let moved = room(self.asked, self.needed_ns(), &self.pcpus).and_then(|room| {
            let command = move_to(&room)?;
            because.push_str(&format!("; {}", room.words));
            figures.extend(room.figures);
            Ok(command)
        });
        let (what, command) = match moved {
            Ok(command) => (format!("Keep {subject} off {pcpus}"), Ok(command)),
            Err(no_room) => match weigh_less() {
                Ok(command) => {
                    because.push_str(&format!("; {no_room}"));
                    (format!("Let {subject} have less of {pcpus}"), Ok(command))
                }
                Err(no_weight) => {
                    (format!("Keep {subject} off {pcpus}"), Err(format!("{no_room}; {no_weight}")))
                }
            },
        };
        Draft { against, action: what, because, figures, command }
    }

    /// The thread that a command is for.
    fn moved_thread(&self) -> Result<Tid, String> {
        let thread = self.thread(DOMINANT_SHARE);
        let thread =
            thread.ok_or("several of its threads ran there, and none of them most of the time")?;
        Ok(thread.antagonist.thread.tid)
    }

    fn machine(&self) -> Result<&'a Machine, String> {
        let machine = self.asked.setup.machine(self.name);
        machine.ok_or_else(|| "which process the VM is, is not known".to_owned())
    }

    fn other_vm(&self) -> Draft {
        let weigh_less = || {
            let (tid, machine) = (self.moved_thread()?, self.machine()?);
            self.less_weight(machine, tid)
        };
        self.draft(
            Against::OtherVm,
            |room| command::pin(self.machine()?, self.moved_thread()?, &room.pcpus),
            weigh_less,
        )
    }

    /// The weight of a unit counts against that of another one, the nice value of a thread within its group.
    fn less_weight(&self, machine: &Machine, tid: Tid) -> Command {
        let unknown = || "its control group and that of the vCPU are not both known".to_owned();
        let own = match machine.role(tid) {
            Some(ThreadRole::Vcpu(vcpu)) => machine.group_of(*vcpu),
            _ => None,
        };
        let victim = self.asked.machine().zip(self.asked.vcpu());
        let victim = victim.and_then(|(machine, vcpu)| machine.group_of(vcpu));
        let (own, victim) = own.zip(victim).ok_or_else(unknown)?;
        if own.path == victim.path {
            // sched(7): in the root group each session is a group of its own while autogroup is on.
            let is_root = command::path_of(&own.path) == Some("/");
            if is_root && self.asked.setup.is_autogroup_on != Some(false) {
                return Err(
                    "both are in the root control group, where autogroup weighs sessions and not threads"
                        .to_owned(),
                );
            }
            return command::nice(tid);
        }
        // A group has a weight against those beside it.
        let of_vm = |group: &str| machine.groups.iter().any(|known| known.path == group);
        let mut groups: Vec<&str> =
            machine.groups.iter().map(|group| group.path.as_str()).collect();
        groups.sort_by_key(|path| path.len());
        let is_shared = |path: &&str| {
            let path: &str = path;
            let below = victim.path.strip_prefix(path);
            of_vm(path) && below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        let apart = groups.into_iter().find(|path| !is_shared(path)).ok_or_else(unknown)?;
        let path = command::path_of(apart).ok_or_else(unknown)?;
        command::weigh_less(path, command::is_v2(apart))
    }

    fn own_vm(&self) -> Draft {
        let mut draft = self.draft(
            Against::OwnVm,
            |room| command::pin(self.machine()?, self.moved_thread()?, &room.pcpus),
            // A vCPU waits for its VMM's own thread, so to slow that down helps nobody.
            || {
                Err("less weight for the VMM's own threads would make the guest wait for them"
                    .to_owned())
            },
        );
        if self.thread(NEARLY_ALL).is_none() {
            draft.action = format!(
                "Keep {}'s other threads off {}",
                short(self.name),
                room::named(&self.pcpus)
            );
        }
        draft
    }

    fn control_group(&self) -> Draft {
        let path = self.path.ok_or_else(|| "the path of its control group is not known".to_owned());
        let is_v2 = self.asked.setup.machines.iter().flat_map(|machine| &machine.groups);
        let is_v2 = is_v2.map(|group| command::is_v2(&group.path)).next() == Some(true);
        let process = self.thread(NEARLY_ALL).filter(|row| {
            let processes = row.antagonist.processes;
            processes.is_exact && processes.count == 1
        });
        let process = process.and_then(|row| row.antagonist.pid);
        let path = path.as_deref();
        self.draft(
            Against::ControlGroup,
            |room| {
                let path = path.map_err(Clone::clone)?;
                // Version 1 has no `AllowedCPUs=`.
                if !is_v2 && process.is_none() {
                    return Err(
                        "systemd confines a unit only with control groups of version 2".to_owned()
                    );
                }
                let path = if is_v2 { path } else { "/" };
                command::confine(path, process, &room.pcpus)
            },
            || command::weigh_less(path.map_err(Clone::clone)?, is_v2),
        )
    }

    /// A kernel's thread goes where its work is, and that no event tells.
    fn kernel_thread(&self) -> Draft {
        let (subject, pcpus) = (self.subject(), room::named(&self.pcpus));
        let (what, why) = if subject.starts_with("ksoftirqd") {
            (
                format!("Keep interrupts off {pcpus}"),
                "which interrupts they were is not recorded: /proc/interrupts counts them",
            )
        } else if subject.starts_with("kworker/u") {
            (
                format!("Keep the kernel's unbound workers off {pcpus}"),
                "which of them may be kept from it is the host's affair: \
                 /sys/devices/virtual/workqueue/cpumask has the pCPUs of all",
            )
        } else {
            (
                format!("Keep what {subject} works for off {pcpus}"),
                "what this thread of the host's kernel works for is not recorded",
            )
        };
        let (because, figures) = (self.because(&subject), self.figures());
        Draft {
            against: Against::KernelThread,
            action: what,
            because,
            figures,
            command: Err(why.to_owned()),
        }
    }

    fn vslice(&self) -> Draft {
        let subject = self.subject();
        Draft {
            against: Against::Vslice,
            action: format!("Believe this run less: {subject} itself was in the way"),
            because: self.because(&subject),
            figures: self.figures(),
            command: Err("it is gone when nothing is recorded".to_owned()),
        }
    }
}

/// The pCPUs on which a group ran, but for those where it did next to nothing.
fn mostly(rows: &[(usize, &ClassAntagonistGroup)]) -> BTreeSet<PcpuId> {
    let mut by_pcpu: BTreeMap<PcpuId, u64> = BTreeMap::new();
    for (_, row) in rows {
        let ran_ns = by_pcpu.entry(row.pcpu).or_default();
        *ran_ns = ran_ns.saturating_add(row.group.ran_ns);
    }
    let all_ns = sum(by_pcpu.values().copied());
    let of = by_pcpu.into_iter().filter(|(_, ran_ns)| share(*ran_ns, all_ns) >= 1.0 - NEARLY_ALL);
    of.map(|(pcpu, _)| pcpu).collect()
}

/// Whether a thread is of a group.
fn is_of(row: &ClassAntagonist, group: &WithoutGroup) -> bool {
    let antagonist = &row.antagonist;
    let is_kind = match (group.kind, antagonist.thread.kind) {
        (GroupKind::OtherVm, Relation::OtherVmVcpu | Relation::OtherVmThread)
        | (GroupKind::OwnVm, Relation::OwnVmVcpu | Relation::OwnVmThread)
        | (GroupKind::ControlGroup, Relation::HostTask | Relation::OtherVslice)
        | (GroupKind::Collector, Relation::Collector) => {
            antagonist.group.as_deref() == Some(group.name.as_str())
                && antagonist.group_path == group.path
        }
        (GroupKind::KernelThread, Relation::KernelThread)
        | (GroupKind::OtherVslice, Relation::OtherVslice)
        | (GroupKind::Unknown, _) => antagonist.thread.name == group.name,
        _ => false,
    };
    is_kind && antagonist.ran_ns > 0
}

fn short(name: &str) -> String {
    crate::summary::text::page::shorten(name, NAME_CHARS_MAX)
}

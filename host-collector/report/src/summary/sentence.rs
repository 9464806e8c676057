//! What a class of requests waited for, as a sentence made only of its causes.
//!
//! Causes of one kind count together, whatever their phase, because their remedy is the same; the sentence
//! says how they divide over the phases. Who ran on the pCPU is known over all waits for it, including those
//! while the device had the I/O, so for the waits outside the device an antagonist is credited only with what
//! it must have run in them.

use super::causes::{Cause, Group, Kind, NAMED_SHARE, NEARLY_ALL, Weight, groups};
use super::io::IoClass;
use super::model::{Class, Summary};
use super::quota;
use super::totals::{share, sum};
use super::verdict::{DOMINANT_SHARE, INACTIVITY_SHARE, requesters, who};
use std::borrow::Cow;
use std::collections::BTreeMap;
use vslice_core::join::{Part, Phase};
use vslice_core::units::{PcpuId, VcpuId};
use vslice_spec::quantity::whole_percent;

/// What some requests have to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The vCPUs that made them, or had to act on them.
    pub(super) vcpus: Vec<(String, VcpuId)>,
    /// What these are called, as one.
    pub(super) who: String,
    /// The host's disks that had their I/O.
    pub(super) disks: Vec<String>,
    /// The guest's own queue that they may have waited in, as it is called.
    pub(super) guest_queue: String,
    /// Whether who ran is known also of waits while the disk had the I/O.
    pub(super) has_device_waits: bool,
}

impl Subject {
    /// Of the requests of a run's readers.
    pub(super) fn of_readers(summary: &Summary) -> Subject {
        let vcpus = requesters(summary).into_iter().map(|(vm, vcpu)| (vm.to_owned(), vcpu));
        let disks = summary.io.disks.iter().filter_map(|disk| disk.device.clone());
        Subject {
            vcpus: vcpus.collect(),
            who: who(summary),
            disks: disks.collect(),
            guest_queue: "the guest's own queue".to_owned(),
            has_device_waits: true,
        }
    }

    fn disk(&self) -> String {
        let mut disks: Vec<&str> = self.disks.iter().map(String::as_str).collect();
        disks.sort_unstable();
        disks.dedup();
        match disks.as_slice() {
            [disk] => format!("the host's disk ({disk})"),
            _ => "the host's disk".to_owned(),
        }
    }
}

/// A class of requests, with all that a sentence about it needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClassAnswer<'a> {
    pub(super) summary: &'a Summary,
    pub(super) subject: &'a Subject,
    pub(super) class: &'a Class,
    pub(super) io: &'a IoClass,
    pub(super) causes: &'a [Cause],
}

impl ClassAnswer<'_> {
    /// What the requests of the class waited for, as a sentence without its beginning and end.
    pub(super) fn because(&self) -> String {
        let groups = groups(self.causes);
        let Some(first) = groups.first() else {
            return "the requests took no measurable time".to_owned();
        };
        if self.dominates(first, &groups) {
            let percent = whole_percent(self.share(first.total_ns));
            let text = match first.kind {
                Kind::Device => self.device(&percent),
                Kind::GuestQueue => self.guest_queue(&percent),
                Kind::PcpuWait => {
                    let wait = self.pcpu_wait(first, &percent);
                    format!("{wait}{}{}", self.when(first), self.quota())
                }
                Kind::OnPcpu | Kind::State(_) => self.state(first, &percent),
            };
            return format!("{text}{}", self.inactivity_beside(&[first]));
        }
        self.undecided(&groups)
    }

    /// The kinds of cause of a class that none of them explains.
    fn undecided(&self, groups: &[Group<'_>]) -> String {
        let is_named =
            |rank: usize, of: &Group<'_>| rank < 2 || self.share(of.total_ns) >= NAMED_SHARE;
        let named = groups.iter().enumerate().filter(|(rank, group)| is_named(*rank, group));
        let named: Vec<&Group<'_>> = named.map(|(_, group)| group).collect();
        let with_phase = named.iter().copied().filter(|group| group.only_phase().is_some());
        let with_phase: Vec<&Group<'_>> = with_phase.collect();
        let inactivity = self.inactivity_beside(&with_phase);
        let unknown_ns = sum(groups.iter().map(|group| group.of_phase_ns(Phase::Unknown)));
        let doubt = self.doubt(unknown_ns);
        let has_wait = named.iter().any(|group| group.kind == Kind::PcpuWait);
        let quota = if has_wait { self.quota() } else { String::new() };
        let named: Vec<String> = named.into_iter().map(|group| self.named(group)).collect();
        format!("no single cause dominates: {}{quota}{doubt}{inactivity}", named.join("; "))
    }

    fn share(&self, length_ns: u64) -> f64 {
        share(length_ns, self.class.latency_ns)
    }

    /// Whether the longest kind explains the class.
    fn dominates(&self, first: &Group<'_>, groups: &[Group<'_>]) -> bool {
        let next = groups.get(1).map_or(0.0, |next| self.share(next.total_ns));
        let device = groups.iter().find(|group| group.kind == Kind::Device);
        let device = device.map_or(0.0, |device| self.share(device.total_ns));
        let known_ns = first.total_ns - first.of_phase_ns(Phase::Unknown);
        let weight = Weight {
            kind: first.kind,
            share: self.share(first.total_ns),
            known: self.share(known_ns),
        };
        weight.dominates(next, device)
    }

    /// That a quota may be what such waits were for, though a neighbour had the pCPU.
    fn quota(&self) -> String {
        let vcpus = self.subject.vcpus.iter().map(|(vm, vcpu)| (vm.as_str(), *vcpu));
        quota::doubt(self.summary, &vcpus.collect::<Vec<_>>())
    }

    /// The guest's own queue is no fault of the host, and a faster host no remedy.
    fn guest_queue(&self, percent: &str) -> String {
        format!(
            "the requests waited in {} for {percent} of the time, which is not the host's doing: {} \
             was on a pCPU or idle meanwhile, or another vCPU took them out",
            self.subject.guest_queue, self.subject.who
        )
    }

    fn device(&self, percent: &str) -> String {
        let disk = self.subject.disk();
        format!("the I/O was in {disk} or its queue for {percent} of the time{}", self.meanwhile())
    }

    /// What the vCPU mostly did while the device had the I/O: context.
    fn meanwhile(&self) -> String {
        let device_ns = self.io.phases_ns.get(&Phase::Device).copied().unwrap_or(0);
        let mut all: BTreeMap<Part, u64> = BTreeMap::new();
        for part in Part::ALL {
            let named = match Kind::of(Some(part)) {
                Kind::OnPcpu => Part::OnPcpu,
                Kind::State(part) => part,
                Kind::Device | Kind::GuestQueue | Kind::PcpuWait => part,
            };
            let length_ns = all.entry(named).or_default();
            *length_ns = length_ns.saturating_add(self.io.get(Phase::Device, part));
        }
        let most = all.into_iter().rev().max_by_key(|(_, length_ns)| *length_ns);
        let Some((part, most_ns)) = most else { return String::new() };
        let of_device = share(most_ns, device_ns);
        let meanwhile = match of_device {
            _ if part == Part::Unknown || of_device < DOMINANT_SHARE => return String::new(),
            _ if of_device < NEARLY_ALL => "for most of that time",
            _ => "meanwhile",
        };
        format!("; {meanwhile} {} {}", self.subject.who, was(part))
    }

    fn pcpu_wait(&self, wait: &Group<'_>, percent: &str) -> String {
        let waits = [Part::PreemptWait, Part::WakeupDelay];
        let of_device = waits.map(|part| self.io.get(Phase::Device, part));
        let device_ns = if self.subject.has_device_waits { sum(of_device) } else { 0 };
        let (who, first) = (self.subject.who.as_str(), self.first());
        let ran = first.as_ref().map(|first| {
            let ran_ns = first.ran_ns;
            (first, ran_ns.saturating_sub(device_ns), ran_ns.min(wait.total_ns))
        });
        if let Some((first, least_ns, most_ns)) = ran
            && share(least_ns, wait.total_ns) >= DOMINANT_SHARE
        {
            let (least, most) =
                (whole_percent(self.share(least_ns)), whole_percent(self.share(most_ns)));
            if least == percent {
                return first.had_it(percent);
            }
            let at_least = if least == most { "" } else { "at least " };
            let mut because = first.ran();
            // With several requesters the share is of all of them, and what one thread ran is of one.
            if first.victim != who {
                because.push_str(&format!(" while {} waited", first.victim));
            }
            return format!(
                "{who} waited for a pCPU for {percent} of the time ({at_least}{least} because {because})"
            );
        }
        let what = match wait.only_part() {
            Some(Part::PreemptWait) => "waited for a pCPU after being preempted",
            Some(Part::WakeupDelay) => "waited for a pCPU after a wakeup",
            _ => "waited for a pCPU",
        };
        let shared = first.map_or_else(String::new, |first| first.shared(self.class.wait_ns));
        format!("{who} {what} for {percent} of the time{shared}")
    }

    /// Who ran longest while requests waited; nobody, if that was longer. A row may be there for what it
    /// ran in another class alone.
    fn first(&self) -> Option<LongestRunner<'_>> {
        let idle_ns = self.class.idle_ns;
        let row = self.class.antagonist_groups.first();
        if let Some(row) = row.filter(|row| row.group.ran_ns >= idle_ns.max(1)) {
            return Some(LongestRunner {
                victim: format!("{} {}", row.victim_vm, row.victim_vcpu),
                who: Some((row.group.subject(), row.pcpu)),
                ran_ns: row.group.ran_ns,
            });
        }
        (idle_ns > 0).then(|| LongestRunner {
            victim: self.subject.who.clone(),
            who: None,
            ran_ns: idle_ns,
        })
    }

    fn state(&self, group: &Group<'_>, percent: &str) -> String {
        let who = self.subject.who.as_str();
        if group.kind == Kind::State(Part::Halt) {
            match group.only_phase() {
                Some(Phase::Completed) => {
                    return format!(
                        "{who} was halted for {percent} of the time after the disk had done the I/O: the \
                         host's kernel or the VMM had not yet passed it on, or the VMM notified another vCPU"
                    );
                }
                Some(Phase::Queued) => {
                    return format!(
                        "the VMM had not yet submitted the I/O to the host for {percent} of the time; \
                         {who} was halted meanwhile"
                    );
                }
                Some(Phase::Unknown | Phase::Device | Phase::GuestQueue) => {}
                None => {
                    return format!(
                        "{who} was halted for {percent} of the time, waiting for the VMM or another \
                         vCPU{}",
                        self.when(group)
                    );
                }
            }
        }
        let what = match (group.kind, group.only_part()) {
            (_, Some(part)) | (Kind::State(part), None) => was(part),
            (_, None) => was(Part::OnPcpu),
        };
        format!("{who} {what} for {percent} of the time{}", self.when(group))
    }

    /// How a kind of cause is shared out over the phases.
    fn when(&self, group: &Group<'_>) -> String {
        match group.only_phase() {
            Some(Phase::GuestQueue) => {
                return ", while the requests were in the guest's own queue".to_owned();
            }
            Some(Phase::Queued) => return ", before the I/O reached the host".to_owned(),
            Some(Phase::Completed) => return ", after the I/O had completed".to_owned(),
            Some(Phase::Unknown) if self.share(self.io.unknown_ns()) < 1.0 - NEARLY_ALL => {
                return "; the host's page cache had the data, so no disk was involved".to_owned();
            }
            Some(Phase::Unknown) => {
                return "; the I/O phase is unknown, so it may have been the disk that they waited for"
                    .to_owned();
            }
            Some(Phase::Device) | None => {}
        }
        let known = [
            (Phase::GuestQueue, "while they were in the guest's own queue"),
            (Phase::Completed, "after the I/O had completed"),
            (Phase::Queued, "before it reached the host"),
        ];
        let known = known.map(|(phase, when)| (group.of_phase_ns(phase), when));
        let known = known.iter().filter(|(length_ns, _)| *length_ns > 0);
        let known: Vec<String> = known
            .map(|(length_ns, when)| format!("{} {when}", whole_percent(self.share(*length_ns))))
            .collect();
        format!(": {}{}", known.join(", "), self.doubt(group.of_phase_ns(Phase::Unknown)))
    }

    /// That the phases of so much are not known, if it could change what is said.
    fn doubt(&self, unknown_ns: u64) -> String {
        // Which of it the page cache served is known of the whole class only.
        let unknown = self.share(unknown_ns.min(self.io.unknown_ns()));
        if unknown < 1.0 - NEARLY_ALL {
            return String::new();
        }
        let percent = whole_percent(unknown);
        format!(
            "; for {percent} the I/O phase is unknown, so it may have been the disk that they waited for"
        )
    }

    /// A kind of cause in a list of them.
    fn named(&self, group: &Group<'_>) -> String {
        let percent = whole_percent(self.share(group.total_ns));
        match group.kind {
            Kind::Device => return format!("{percent} in {}", self.subject.disk()),
            Kind::GuestQueue => return format!("{percent} in {}", self.subject.guest_queue),
            Kind::PcpuWait | Kind::OnPcpu | Kind::State(_) => {}
        }
        let what = group.what();
        let when = match group.only_phase() {
            Some(Phase::GuestQueue) => " while the requests were in the guest's own queue",
            Some(Phase::Queued) => " before the I/O reached the host",
            Some(Phase::Completed) => " after the I/O had completed",
            _ => "",
        };
        format!("{percent} {what}{when}")
    }

    /// I/O inactivity, if there is much beyond what has been told with its phase: it is what a faster
    /// disk does not help.
    fn inactivity_beside(&self, told: &[&Group<'_>]) -> String {
        let told = told.iter().filter(|group| group.kind.is_inactivity());
        let told_ns = sum(told.map(|group| group.of_phase_ns(Phase::Completed)));
        let untold_ns = self.io.inactivity_ns.saturating_sub(told_ns);
        if self.share(untold_ns) < INACTIVITY_SHARE {
            return String::new();
        }
        let percent = whole_percent(self.io.inactivity_share);
        let who = self.subject.who.as_str();
        format!(
            "; {percent} is I/O inactivity: the I/O had completed, but {who} was not on a pCPU to handle it"
        )
    }
}

/// Who ran longest while requests waited.
#[derive(Debug)]
struct LongestRunner<'a> {
    victim: String,
    /// `None` for nobody.
    who: Option<(Cow<'a, str>, PcpuId)>,
    ran_ns: u64,
}

impl LongestRunner<'_> {
    /// That it explains a wait that takes `percent` of the requests' time.
    fn had_it(&self, percent: &str) -> String {
        let joint = if self.who.is_none() { "while" } else { "because" };
        format!(
            "{} waited for a pCPU for {percent} of the time {joint} {}",
            self.victim,
            self.ran()
        )
    }

    fn ran(&self) -> String {
        let idle = || "its pCPU was idle".to_owned();
        self.who.as_ref().map_or_else(idle, |(name, pcpu)| format!("{name} was running on {pcpu}"))
    }

    /// How a wait that no one thread explains was shared out, if anybody had much of it.
    fn shared(&self, wait_ns: u64) -> String {
        let share = share(self.ran_ns, wait_ns);
        if share < NAMED_SHARE {
            return String::new();
        }
        let percent = whole_percent(share);
        match &self.who {
            Some((name, _)) => format!(" ({name} ran during {percent} of the waits)"),
            None => format!(" (its pCPU was idle during {percent} of the waits)"),
        }
    }
}

fn was(part: Part) -> &'static str {
    match part {
        Part::OnPcpu => "was on a pCPU (in the guest, in KVM or in the VMM)",
        Part::PreemptWait => "waited for a pCPU after being preempted",
        Part::WakeupDelay => "waited for a pCPU after a wakeup",
        Part::Guest => "was running in the guest",
        Part::Kvm => "was running in KVM",
        Part::VmmUser => "was running in the VMM",
        Part::HaltPoll => "was halted while KVM polled",
        Part::Throttled => "was throttled (its CPU quota was used up)",
        Part::BqlWait => "waited for QEMU's big lock",
        Part::LockWait => "waited for a VMM lock",
        Part::HostFault => "waited for a host page fault",
        Part::IoSubmit => "waited for disk I/O of its own thread",
        Part::Halt => "was halted",
        Part::OtherSleep => "slept elsewhere in the host kernel",
        Part::Unknown => "was in an unknown state",
    }
}

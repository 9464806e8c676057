//! Who writes the scheduler's events, and those of disks, into the rings: BPF programs where that is
//! allowed, otherwise perf's own tracepoint events.

use super::RecordError;
use super::attr::{self, GroupBirths, Stack};
use super::bpf::{Groups, ProgramError, Programs};
use super::filter;
use super::format::Detail;
use super::machine::{Machine, Watch};
use super::opening::{Events, kernel};
use std::ops::Range;
use std::os::fd::AsFd;
use vslice_host::control_groups::GroupNames;
use vslice_perf::filter::Numbers;
use vslice_trace::evidence::{GroupEvidence, GroupSource};

/// What may be refused while recording, as a verb.
const SET_MAP: &str = "set a value of a BPF map";

/// Who shall record the scheduler's events, and what disks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulerSource {
    /// BPF programs; perf's tracepoint events where programs cannot be had.
    #[default]
    Programs,
    /// perf's tracepoint events, also where programs could be had.
    Tracepoints,
}

/// Who records them.
#[derive(Debug)]
pub(super) enum Source {
    Programs(Programs),
    Tracepoints,
}

impl Source {
    /// Programs if they are wanted and can be had, and otherwise why not.
    pub(super) fn choose(
        machine: &Machine,
        watch: &Watch,
        wanted: SchedulerSource,
    ) -> (Source, Option<ProgramError>) {
        if wanted == SchedulerSource::Tracepoints {
            return (Source::Tracepoints, None);
        }
        match load(machine, watch, groups_of(machine)) {
            Ok(programs) => (Source::Programs(programs), None),
            Err(error) => (Source::Tracepoints, Some(error)),
        }
    }

    /// Whether programs record what the disks do; else why they do not, if they were to.
    pub(super) fn disks(&self) -> Result<(), Option<&ProgramError>> {
        match self {
            Source::Programs(programs) => programs.disks(),
            Source::Tracepoints => Err(None),
        }
    }

    /// How the control groups of threads are known, on a machine with these.
    pub(super) fn group_evidence(&self, groups: &Result<GroupNames, String>) -> GroupEvidence {
        const ONLY_AT_FIRST: &str = "those of threads that came later are not known";
        let census = |why: String| GroupEvidence {
            source: GroupSource::Census,
            reason: format!("{why}: {ONLY_AT_FIRST}"),
        };
        match (groups, self) {
            (Err(why), _) => GroupEvidence { source: GroupSource::Nothing, reason: why.clone() },
            (Ok(names), _) if !names.have_numbers() => {
                census("cgroup v2 is not mounted on this host".to_owned())
            }
            (Ok(_), Source::Tracepoints) => census("no BPF programs recorded this run".to_owned()),
            (Ok(_), Source::Programs(programs)) => match programs.groups() {
                Ok(()) => GroupEvidence { source: GroupSource::Events, reason: String::new() },
                Err(why) => census(why.unwrap_or("they were not asked for").to_owned()),
            },
        }
    }

    /// Whether the rings are told of control groups that are made.
    pub(super) fn group_births(&self, groups: &Result<GroupNames, String>) -> GroupBirths {
        let is_told = matches!(self, Source::Programs(programs) if programs.groups().is_ok())
            && groups.as_ref().is_ok_and(GroupNames::are_births_told);
        if is_told { GroupBirths::Recorded } else { GroupBirths::NotRecorded }
    }

    /// Opens what writes the scheduler's events into a pCPU's ring.
    pub(super) fn open(
        &self,
        machine: &Machine,
        watch: &Watch,
        events: &mut Events<'_>,
    ) -> Result<(), RecordError> {
        let pcpu = events.pcpu;
        let with_stack = Stack::Kernel { frames_max: machine.frames_max };
        if let Source::Programs(programs) = self {
            let output = |stack| attr::program_output(stack, machine.lost);
            let plain = events.open(output(Stack::None), None)?;
            let stacked = events.open(output(with_stack), None)?;
            let joined = programs.write_to(pcpu.0, plain.as_fd(), stacked.as_fd());
            joined.map_err(kernel("attach to a BPF program", pcpu))?;
            [plain, stacked].into_iter().for_each(|event| events.keep(event));
            return Ok(());
        }
        events.add(machine.switch(with_stack), filter::stacked_leave(&watch.stacked))?;
        let others = if watch.pcpus.contains(&pcpu.0) {
            filter::others_leave(&watch.stacked)
        } else {
            filter::threads_switch(&watch.stacked, &watch.threads)
        };
        events.add(machine.switch(Stack::None), others)?;
        events.add(machine.waking(), filter::wakings(&watch.threads, &watch.pcpus, pcpu.0))
    }

    /// Lets programs run. Nothing is recorded before the events that they write to are enabled.
    pub(super) fn attach(&mut self) -> Result<(), ProgramError> {
        match self {
            Source::Programs(programs) => programs.attach(),
            Source::Tracepoints => Ok(()),
        }
    }

    /// Opens on one pCPU what records threads that were born during the run, disabled; programs need
    /// nothing.
    pub(super) fn open_more(
        &self,
        machine: &Machine,
        watch: &Watch,
        new: &Numbers,
        events: &mut Events<'_>,
    ) -> Result<(), RecordError> {
        if let Source::Programs(_) = self {
            return Ok(());
        }
        let pcpu = events.pcpu;
        if !watch.pcpus.contains(&pcpu.0) {
            let filters = filter::new_threads_switch(new, &watch.threads);
            events.add(machine.switch(Stack::None), filters)?;
        }
        // `stacked` are the threads that were there at the start, by whom the first filters go.
        let filters = filter::new_wakings(new, &watch.stacked, &watch.pcpus, pcpu.0);
        events.add(machine.waking(), filters)
    }

    /// Threads that were born during the run are wanted too; tracepoint events are opened for them.
    pub(super) fn want(&mut self, tids: &Numbers) -> Result<(), RecordError> {
        match self {
            Source::Programs(programs) => {
                let wanted = programs.want_tids(tids.iter().copied());
                wanted.map_err(|source| RecordError::Host { doing: SET_MAP, source })
            }
            Source::Tracepoints => Ok(()),
        }
    }

    /// Threads have ended, and their numbers may become strangers'. Where that cannot be said, those
    /// are recorded though nobody asked for them.
    pub(super) fn forget(&mut self, tids: &Numbers) {
        if let Source::Programs(programs) = self {
            let _ = programs.forget_tids(tids.iter().copied());
        }
    }

    /// Where recording's own code is in the kernel, if programs record.
    pub(super) fn code(&self) -> Option<Vec<Range<u64>>> {
        match self {
            Source::Programs(programs) => Some(programs.code()),
            Source::Tracepoints => None,
        }
    }
}

/// Whether BPF programs may record here: loads them, lets them run and undoes it.
///
/// # Errors
/// Why not, as a sentence without its end.
pub fn check_programs() -> Result<(), String> {
    let machine = Machine::ask(&[]).map_err(|error| error.to_string())?;
    load(&machine, &Watch::default(), groups_of(&machine))
        .and_then(|mut programs| programs.attach())
        .map_err(|error| error.to_string())
}

/// Whether BPF programs may record here what disks do: loads them and undoes it.
///
/// # Errors
/// Why not, as a sentence without its end.
pub fn check_disk_programs() -> Result<(), String> {
    let machine = Machine::ask(&Detail::DISK).map_err(|error| error.to_string())?;
    // No disk has this number.
    let watch = Watch { disks: Numbers::from([0]), ..Watch::default() };
    let mut programs =
        load(&machine, &watch, Groups::NotTold).map_err(|error| error.to_string())?;
    match programs.disks() {
        Ok(()) => programs.attach().map_err(|error| error.to_string()),
        Err(Some(error)) => Err(error.to_string()),
        Err(None) => Err(format!("there is no tracepoint {}", machine.missing.join(", "))),
    }
}

fn groups_of(machine: &Machine) -> Groups {
    let have_numbers = machine.groups.as_ref().is_ok_and(GroupNames::have_numbers);
    if have_numbers { Groups::Told } else { Groups::NotTold }
}

fn load(machine: &Machine, watch: &Watch, groups: Groups) -> Result<Programs, ProgramError> {
    let last = machine.online.last().copied().unwrap_or_default();
    let mut programs = Programs::load(&machine.formats, last.0 + 1, &watch.disks, groups)?;
    programs
        .want_tids(watch.threads.iter().copied())
        .and_then(|()| programs.want_pcpus(watch.pcpus.iter().copied()))
        .map_err(|source| ProgramError::Refused { doing: SET_MAP, source })?;
    Ok(programs)
}

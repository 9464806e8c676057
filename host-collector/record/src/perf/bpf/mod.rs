// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! BPF programs that record the scheduler's events and what disks do: for less than perf's own tracepoint
//! events cost, and they see what those miss.
//!
//! ```text
//! kernel_types   where the running kernel keeps what is read      (its BTF)
//! assembly       instructions                                     (pure)
//! programs       what is recorded of the scheduler, and how       (pure)
//! block_programs what is recorded of disks, and how               (pure)
//! record         a record while a program makes it                (pure)
//! sys            bpf(2): all that is unsafe
//! ```
//!
//! A program decides in the kernel whether an event is wanted, and writes it with
//! `bpf_perf_event_output` into the ring of the pCPU that `rings` reads anyhow, in the tracepoint's
//! own layout. So losses, the order of records and everything behind them are the same whoever wrote
//! them.
//!
//! Needs Linux 5.15 (`bpf_task_pt_regs`), BTF, and CAP_BPF with CAP_PERFMON. Where that is not to be
//! had, perf's tracepoint events do the same for up to twice the cost (`make bench`). Those drop what
//! hits them while perf is at work for the same task, without counting
//! (`perf_swevent_get_recursion_context` in kernel/events/core.c), and on one kernel all that the idle
//! task of one pCPU did.

mod assembly;
mod block_programs;
#[cfg(test)]
mod c_tests;
mod kernel_types;
mod programs;
mod record;
mod sys;

use super::format::{Detail, Formats};
use kernel_types::KernelTypes;
pub(super) use programs::Groups;
use programs::{Maps, ROW_BYTES};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vslice_core::host_event::BlockStep;
use vslice_perf::filter::Numbers;

/// Why programs cannot record here; a sentence without its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// The kernel's types are not there, or not as they are known.
    #[error("{0}")]
    Types(String),
    /// Something was refused.
    #[error("cannot {doing}: {source}")]
    Refused {
        /// What was tried, as a verb.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn refused(doing: &'static str) -> impl Fn(io::Error) -> ProgramError {
    move |source| ProgramError::Refused { doing, source }
}

/// The programs, loaded; attached with [`Programs::attach`] until this is dropped.
#[derive(Debug)]
pub(super) struct Programs {
    /// Its only value is `row`.
    wanted: OwnedFd,
    row: Vec<u8>,
    plain: OwnedFd,
    stacked: OwnedFd,
    programs: Vec<OwnedFd>,
    /// Whether some of them record what the disks do; else why not, if that was wanted.
    disks: Result<(), Option<ProgramError>>,
    /// Whether they tell control groups; else why not, if that was wanted.
    groups: Result<(), Option<String>>,
    links: Vec<OwnedFd>,
}

impl Programs {
    /// Loads them for a machine whose pCPUs have numbers below `pcpus_count`. Those for the disks are left
    /// out where they cannot be had, or where `formats` does not ask for them.
    pub(super) fn load(
        formats: &Formats,
        pcpus_count: u32,
        disks: &Numbers,
        groups: Groups,
    ) -> Result<Programs, ProgramError> {
        let types = KernelTypes::read().map_err(ProgramError::Types)?;
        let wanted = sys::make_map(sys::MapKind::Array, ROW_BYTES, 1);
        let wanted = wanted.map_err(refused("make a BPF map"))?;
        let events = || {
            sys::make_map(sys::MapKind::PerfEvents, 4, pcpus_count)
                .map_err(refused("make a BPF map"))
        };
        let (plain, stacked) = (events()?, events()?);
        let maps = Maps { wanted: wanted.as_fd(), plain: plain.as_fd(), stacked: stacked.as_fd() };
        let unknown = || ProgramError::Types("records of the tracepoints are too large".to_owned());
        let switch = programs::switch(&types, formats, maps, groups).ok_or_else(unknown)?;
        let waking = programs::waking(&types, formats, maps).ok_or_else(unknown)?;
        let mut programs = vec![
            load("vslice_switch", &switch, types.switch.type_id)?,
            load("vslice_waking", &waking, types.waking.type_id)?,
        ];
        let disks = match load_block(&types, formats, disks, plain.as_fd()) {
            Ok(of_disks) => {
                programs.extend(of_disks);
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        let row = vec![0; ROW_BYTES as usize];
        let groups = match groups {
            Groups::Told => types.group.map(drop).map_err(Some),
            Groups::NotTold => Err(None),
        };
        let links = Vec::new();
        Ok(Programs { wanted, row, plain, stacked, programs, disks, groups, links })
    }

    /// Whether they record what the disks do; else why not, if that was wanted.
    pub(super) fn disks(&self) -> Result<(), Option<&ProgramError>> {
        self.disks.as_ref().copied().map_err(Option::as_ref)
    }

    /// Whether they tell control groups; else why not, if that was wanted.
    pub(super) fn groups(&self) -> Result<(), Option<&str>> {
        self.groups.as_ref().copied().map_err(Option::as_deref)
    }

    /// Says which events write into a pCPU's ring: one without stacks and one with them.
    pub(super) fn write_to(
        &self,
        pcpu: u32,
        plain: BorrowedFd<'_>,
        stacked: BorrowedFd<'_>,
    ) -> io::Result<()> {
        sys::set_event(self.plain.as_fd(), pcpu, plain)?;
        sys::set_event(self.stacked.as_fd(), pcpu, stacked)
    }

    /// From now on the switches and wakings of these threads are wanted.
    pub(super) fn want_tids(&mut self, tids: impl IntoIterator<Item = u32>) -> io::Result<()> {
        self.change(tids.into_iter().filter_map(programs::place_of_tid), true)
    }

    /// Threads that have ended: their numbers may become others'.
    pub(super) fn forget_tids(&mut self, tids: impl IntoIterator<Item = u32>) -> io::Result<()> {
        self.change(tids.into_iter().filter_map(programs::place_of_tid), false)
    }

    /// From now on every switch on these pCPUs is wanted.
    pub(super) fn want_pcpus(&mut self, pcpus: impl IntoIterator<Item = u32>) -> io::Result<()> {
        self.change(pcpus.into_iter().filter_map(programs::place_of_pcpu), true)
    }

    /// Sets or clears bits of the row, and tells the kernel if that changed any.
    fn change(&mut self, places: impl Iterator<Item = u32>, is_wanted: bool) -> io::Result<()> {
        let mut has_changed = false;
        for place in places {
            let bit = 1 << (place % 8);
            let Some(byte) = self.row.get_mut((place / 8) as usize) else { continue };
            let before =
                std::mem::replace(byte, if is_wanted { *byte | bit } else { *byte & !bit });
            has_changed |= before != *byte;
        }
        if has_changed { sys::set_value(self.wanted.as_fd(), &self.row) } else { Ok(()) }
    }

    /// Runs them from now on.
    pub(super) fn attach(&mut self) -> Result<(), ProgramError> {
        for program in &self.programs {
            let link = sys::attach(program.as_fd()).map_err(refused("attach a BPF program"))?;
            self.links.push(link);
        }
        Ok(())
    }

    /// The addresses of their machine code, where the kernel tells them: the frames of a stack up to
    /// there are those of recording itself.
    pub(super) fn code(&self) -> Vec<Range<u64>> {
        let code = self.programs.iter().filter_map(|program| sys::machine_code(program.as_fd()));
        code.map(|(start, bytes)| start..start + bytes).collect()
    }
}

fn load(name: &str, code: &[assembly::Instruction], type_id: u32) -> Result<OwnedFd, ProgramError> {
    sys::load(name, code, type_id).map_err(refused("load a BPF program"))
}

/// The programs for every step of I/O on these disks, or none of them.
fn load_block(
    types: &KernelTypes,
    formats: &Formats,
    disks: &Numbers,
    plain: BorrowedFd<'_>,
) -> Result<[OwnedFd; 3], Option<ProgramError>> {
    let steps = [
        ("vslice_bio", BlockStep::Submitted),
        ("vslice_issue", BlockStep::Issued),
        ("vslice_done", BlockStep::Completed),
    ];
    let has = |step| formats.details.iter().any(|format| format.detail == Detail::Block(step));
    if disks.is_empty() || !steps.iter().all(|(_, step)| has(*step)) {
        return Err(None);
    }
    let types = types.block.as_ref().map_err(|what| ProgramError::Types(what.clone()))?;
    let load_one = |(name, step)| {
        let (tracepoint, code) = block_programs::block(step, types, formats, disks, plain)
            .ok_or_else(|| ProgramError::Types("records of the disks are too large".to_owned()))?;
        load(name, &code, tracepoint.type_id)
    };
    let [submitted, issued, completed] = steps;
    Ok([load_one(submitted)?, load_one(issued)?, load_one(completed)?])
}

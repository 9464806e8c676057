//! The requests that the answer is about, and where the summary has their figures.

use super::setup::{Machine, Setup};
use super::{AdviceRow, Draft, Figure, GAIN_SHARE_MIN, Gain, Percentile};
use crate::summary::causes::{Cause, Kind};
use crate::summary::model::{Class, LatencyNs, Summary};
use crate::summary::observed::{is_of_reader, subject};
use crate::summary::totals::{share, sum};
use crate::summary::verdict::requesters;
use crate::summary::what_if::{Percentiles, WhatIf, Without};
use std::collections::BTreeSet;
use vslice_core::join::Phase;
use vslice_core::units::VcpuId;
use vslice_trace::vmm::Accelerator;

/// The requests that the answer is about.
#[derive(Clone)]
pub(super) struct Asked<'a> {
    pub(super) summary: &'a Summary,
    pub(super) setup: &'a Setup,
    /// What they are called; `None` if they are those of the readers.
    pub(super) of: Option<String>,
    /// Where the summary has their figures.
    path: String,
    pub(super) what_if: &'a WhatIf,
    latency_ns: &'a LatencyNs,
    /// How many there were, and below which latency they were only counted.
    counted: (u64, Option<u64>),
    /// The slow ones, or all where none is slower than the others.
    pub(super) class: &'a Class,
    causes: &'a [Cause],
    all: (&'a Class, &'a [Cause]),
    is_tail: bool,
    pub(super) vcpus: Vec<(String, VcpuId)>,
}

impl<'a> Asked<'a> {
    /// `None` if none of them could be attributed to causes.
    pub(super) fn of(summary: &'a Summary, setup: &'a Setup) -> Option<Asked<'a>> {
        if summary.requests.count > 0 || subject(summary).is_none() || is_of_reader(summary) {
            return Asked::of_readers(summary, setup);
        }
        let (row, guest) = subject(summary)?;
        let place = summary.observed.as_ref()?.answer?;
        let label = row.operation.label(row.is_sync);
        let floor_ns = guest.slower_than_us.saturating_mul(1_000);
        let is_tail = row.classes.p99.count > 0;
        let asked = Asked {
            summary,
            setup,
            of: Some(format!("{} {} {label}", row.vm, row.device)),
            path: format!("/observed/operations/{place}"),
            what_if: row.what_if.as_ref()?,
            latency_ns: &row.latency_ns,
            counted: (row.count.saturating_add(row.faster), (row.faster > 0).then_some(floor_ns)),
            class: if is_tail { &row.classes.p99 } else { &row.classes.all },
            causes: if is_tail { &row.causes.p99 } else { &row.causes.all },
            all: (&row.classes.all, &row.causes.all),
            is_tail,
            vcpus: row.vcpus.iter().map(|vcpu| (row.vm.clone(), *vcpu)).collect(),
        };
        Some(asked).filter(|asked| asked.class.count > 0)
    }

    fn of_readers(summary: &'a Summary, setup: &'a Setup) -> Option<Asked<'a>> {
        let is_tail = summary.classes.p99.count > 0;
        let vcpus = requesters(summary).into_iter().map(|(vm, vcpu)| (vm.to_owned(), vcpu));
        let placed = summary.requests.count;
        let unplaced = summary.requests.unattributable_by.unplaced();
        let asked = Asked {
            summary,
            setup,
            of: None,
            path: String::new(),
            what_if: summary.what_if.as_ref()?,
            latency_ns: &summary.latency_ns,
            counted: (placed.saturating_sub(unplaced), None),
            class: if is_tail { &summary.classes.p99 } else { &summary.classes.all },
            causes: if is_tail { &summary.causes.p99 } else { &summary.causes.all },
            all: (&summary.classes.all, &summary.causes.all),
            is_tail,
            vcpus: vcpus.collect(),
        };
        Some(asked).filter(|asked| asked.class.count > 0)
    }

    /// The gain without something, if it is enough for advice.
    pub(super) fn gain(&self, without: &Without) -> Option<Gain> {
        Gain::of(self.latency_ns, without, self.counted)
    }

    /// Whether a percentile of the tail may be lower by enough for advice without this kind of cause, by the bound that
    /// promises most.
    pub(super) fn may_gain(&self, kind: Kind) -> bool {
        let rows = self.what_if.causes.iter().filter(|row| row.cause == kind);
        let measured = Percentiles::from(self.latency_ns);
        let mut lows = rows.flat_map(|row| {
            let Percentiles { p99, p999, .. } = row.without.low_ns;
            [(measured.p99, p99), (measured.p999, p999)]
        });
        lows.any(|(measured, low)| match (measured, low) {
            (Some(measured), Some(low)) => {
                share(measured.saturating_sub(low), measured) >= GAIN_SHARE_MIN
            }
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    /// With the class in which a gain at this percentile shows: what slow requests have says nothing of the median.
    pub(super) fn at(&self, percentile: Percentile) -> Asked<'a> {
        match percentile {
            Percentile::P99 | Percentile::P999 => self.clone(),
            Percentile::P50 => {
                let (class, causes) = self.all;
                Asked { class, causes, is_tail: false, ..self.clone() }
            }
        }
    }

    /// A row on what is at this place of their figures.
    pub(super) fn row(&self, mut draft: Draft, at: &str, gain: Gain) -> AdviceRow {
        draft.figures.extend(self.figures_of(at, &gain));
        draft.with(gain)
    }

    /// The percentile as it was measured, and without what is at this place at most; one that has gone where requests
    /// were only counted has no figure.
    fn figures_of(&self, at: &str, gain: &Gain) -> Vec<Figure> {
        let key = gain.percentile.key();
        let measured = self.figure(&format!("latency_ns/{key}"), gain.measured_ns);
        let left_ns = gain.measured_ns - gain.least_ns;
        let is_floor = Some(left_ns) == self.counted.1;
        let left = (!is_floor).then(|| self.figure(&format!("{at}/high_ns/{key}"), left_ns));
        [measured].into_iter().chain(left).collect()
    }

    /// A figure of these requests.
    pub(super) fn figure(&self, field: &str, value: u64) -> Figure {
        Figure { field: format!("{}/{field}", self.path), value }
    }

    /// A figure of their class.
    pub(super) fn class_figure(&self, field: &str, value: u64) -> Figure {
        self.figure(&format!("classes/{}/{field}", self.class_key()), value)
    }

    fn class_key(&self) -> &'static str {
        if self.is_tail { Percentile::P99.key() } else { "all" }
    }

    /// What the requests of the class are called: `requests above p99`.
    pub(super) fn which(&self) -> &'static str {
        if self.is_tail { "requests above p99" } else { "the requests" }
    }

    /// The share of a length in their latency, in [0, 1].
    pub(super) fn share(&self, length_ns: u64) -> f64 {
        share(length_ns, self.class.latency_ns)
    }

    /// The causes of a kind in these phases, with their places.
    fn of_kind(&self, kind: Kind, phases: &[Phase]) -> impl Iterator<Item = (usize, &Cause)> {
        let causes = self.causes.iter().enumerate();
        causes.filter(move |(_, cause)| cause.kind() == kind && phases.contains(&cause.phase))
    }

    /// How long the requests of the class had this kind of cause in these phases.
    pub(super) fn total_in(&self, kind: Kind, phases: &[Phase]) -> u64 {
        sum(self.of_kind(kind, phases).map(|(_, cause)| cause.total_ns))
    }

    /// The same of all phases.
    pub(super) fn total_of(&self, kind: Kind) -> u64 {
        self.total_in(kind, &Phase::ALL)
    }

    /// Its share, in [0, 1].
    pub(super) fn share_of(&self, kind: Kind) -> f64 {
        self.share(self.total_of(kind))
    }

    /// The figures that [`Asked::total_in`] adds up, and what its share is of.
    pub(super) fn figures_in(&self, kind: Kind, phases: &[Phase]) -> Vec<Figure> {
        let key = self.class_key();
        let figures = self.of_kind(kind, phases).map(|(place, cause)| {
            self.figure(&format!("causes/{key}/{place}/total_ns"), cause.total_ns)
        });
        figures.chain([self.class_figure("latency_ns", self.class.latency_ns)]).collect()
    }

    /// The same of all phases.
    pub(super) fn figures_of_kind(&self, kind: Kind) -> Vec<Figure> {
        self.figures_in(kind, &Phase::ALL)
    }

    /// The VM that made them, if it was one.
    pub(super) fn machine(&self) -> Option<&'a Machine> {
        let vms: BTreeSet<&str> = self.vcpus.iter().map(|(vm, _)| vm.as_str()).collect();
        match vms.into_iter().collect::<Vec<_>>().as_slice() {
            [vm] => self.setup.machine(vm),
            _ => None,
        }
    }

    /// The vCPU that made them, if it was one.
    pub(super) fn vcpu(&self) -> Option<VcpuId> {
        match self.vcpus.as_slice() {
            [(_, vcpu)] => Some(*vcpu),
            _ => None,
        }
    }

    /// What executes the VM's instructions, if that is known.
    pub(super) fn accelerator(&self) -> Option<Accelerator> {
        self.machine()?.accelerator
    }
}

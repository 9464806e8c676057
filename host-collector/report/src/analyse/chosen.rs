//! Which part of a run is told.
//!
//! What happens at an instant, or has a cause there, belongs to the stretch in which it began: a request, an I/O of the
//! host's, a wait for a lock, an exit. What a thread did is cut at the edges of the stretch, as `perf sched timehist --time`
//! does. So the parts of a run add up to it.

use super::observer::MeasuredWindow;
use crate::summary::VmIndex;
use crate::summary::selection::{LeftOut, Selection, moment};
use rustc_hash::FxHashSet;
use std::borrow::Cow;
use vslice_core::join::GuestRequest;
use vslice_core::text::harmless;
use vslice_core::timeline::Span;
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_spec::quantity::duration;
use vslice_trace::manifest::Manifest;

/// What of a run is asked for; the default is all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// From here on, in nanoseconds since the measured window began.
    pub since_ns: Option<u64>,
    /// Until here, likewise.
    pub until_ns: Option<u64>,
    /// The names of VMs; empty: all.
    pub vms: Vec<String>,
    /// vCPUs of these VMs; empty: all.
    pub vcpus: Vec<VcpuId>,
    /// Requests and the host's I/Os that took at least so many nanoseconds; `None`: all.
    pub slower_than_ns: Option<u64>,
}

/// Why nothing of a run can be chosen so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingChosen {
    /// No VM of this name was recorded.
    #[error("no VM of the run is called '{name}': it has {there}")]
    NoVm {
        /// What was asked for.
        name: String,
        /// The names of those that were.
        there: String,
    },
    /// None of the VMs has this vCPU.
    #[error("there is no {vcpu}: the run has {there}")]
    NoVcpu {
        /// What was asked for.
        vcpu: VcpuId,
        /// Those of the chosen VMs.
        there: String,
    },
    /// Nothing lies between the two.
    #[error("there is nothing between {} and {}{}", moment(*.since_ns), moment(*.until_ns), length(*.length_ns))]
    Empty {
        /// Where it was to begin.
        since_ns: u64,
        /// Where it was to end.
        until_ns: u64,
        /// How long the run is; `None` where its recording does not say.
        length_ns: Option<u64>,
    },
    /// The run was over by then.
    #[error("there is nothing after {}{}", moment(*.since_ns), length(Some(*.length_ns)))]
    Beyond {
        /// Where the stretch was to begin.
        since_ns: u64,
        /// How long the run is.
        length_ns: u64,
    },
    /// Nobody knows since when it was measured.
    #[error("the run does not say when it was measured, so it has no stretches of time")]
    NoWindow,
}

fn length(length_ns: Option<u64>) -> String {
    length_ns.map_or_else(String::new, |ns| format!(": the run is {} long", duration(ns)))
}

/// The part of a run that observers are told of.
#[derive(Debug, Clone)]
pub struct Chosen {
    asked: Asked,
    is_asked: bool,
    window: MeasuredWindow,
    stretch: MeasuredWindow,
    /// Whether the stretch begins after the measured window does, and ends before it.
    begins_within: bool,
    ends_within: bool,
    /// Of each VM whether it is chosen.
    vms: Vec<bool>,
    /// The threads that are told of; `None`: all.
    threads: Option<FxHashSet<Tid>>,
}

impl Chosen {
    /// All of a run that was measured over this window.
    #[must_use]
    pub fn whole(window: MeasuredWindow) -> Chosen {
        Chosen {
            asked: Asked::default(),
            is_asked: false,
            window,
            stretch: window,
            begins_within: false,
            ends_within: false,
            vms: Vec::new(),
            threads: None,
        }
    }

    /// What is asked for of this run.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn of(asked: &Asked, manifest: &Manifest) -> Result<Chosen, NothingChosen> {
        let window = MeasuredWindow::of(manifest);
        if *asked == Asked::default() {
            return Ok(Chosen::whole(window));
        }
        let mut chosen = Chosen { asked: asked.clone(), is_asked: true, ..Chosen::whole(window) };
        chosen.choose_time(manifest)?;
        chosen.choose_vms(manifest)?;
        chosen.choose_vcpus(manifest)?;
        Ok(chosen)
    }

    fn choose_time(&mut self, manifest: &Manifest) -> Result<(), NothingChosen> {
        let Asked { since_ns, until_ns, .. } = self.asked;
        if since_ns.is_none() && until_ns.is_none() {
            return Ok(());
        }
        let window = manifest.window.ok_or(NothingChosen::NoWindow)?;
        let length_ns = window.end_ns.map(|end| end.since_ns(window.start_ns));
        let since_ns = since_ns.unwrap_or(0);
        if let Some(length_ns) = length_ns.filter(|length_ns| since_ns >= *length_ns) {
            return Err(NothingChosen::Beyond { since_ns, length_ns });
        }
        if let Some(until_ns) = until_ns.filter(|until_ns| *until_ns <= since_ns) {
            return Err(NothingChosen::Empty { since_ns, until_ns, length_ns });
        }
        let after = |ns: u64| HostNs(window.start_ns.0.saturating_add(ns));
        // A run of a minute may be some nanoseconds shorter: who asks for all of it gets it.
        let until_ns =
            until_ns.filter(|until_ns| length_ns.is_none_or(|length_ns| *until_ns < length_ns));
        (self.begins_within, self.ends_within) = (since_ns > 0, until_ns.is_some());
        self.stretch.start = after(since_ns);
        self.stretch.end = until_ns.map_or(self.stretch.end, after);
        Ok(())
    }

    fn choose_vms(&mut self, manifest: &Manifest) -> Result<(), NothingChosen> {
        let names = || manifest.vms.iter().map(|vm| vm.name.as_str());
        for name in &self.asked.vms {
            if !names().any(|there| there == name) {
                let there = names().map(harmless).collect::<Vec<_>>().join(", ");
                return Err(NothingChosen::NoVm { name: harmless(name), there });
            }
        }
        let chosen = &self.asked.vms;
        let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|of| of == name);
        self.vms = names().map(is_chosen).collect();
        Ok(())
    }

    fn choose_vcpus(&mut self, manifest: &Manifest) -> Result<(), NothingChosen> {
        let of_chosen = || manifest.vms.iter().zip(&self.vms).filter(|(_, is_chosen)| **is_chosen);
        let threads = || of_chosen().flat_map(|(vm, _)| vm.threads.iter().map(move |of| (vm, of)));
        for vcpu in &self.asked.vcpus {
            if !threads().any(|(_, of)| of.vcpu == Some(*vcpu)) {
                let there = threads().filter_map(|(vm, of)| Some((harmless(&vm.name), of.vcpu?)));
                let there = there.map(|(vm, vcpu)| format!("{vm} {vcpu}")).collect::<Vec<_>>();
                return Err(NothingChosen::NoVcpu { vcpu: *vcpu, there: there.join(", ") });
            }
        }
        if self.asked.vms.is_empty() && self.asked.vcpus.is_empty() {
            return Ok(());
        }
        let is_told = |vcpu: Option<VcpuId>| match vcpu {
            Some(vcpu) => self.is_chosen(vcpu),
            None => self.asked.vcpus.is_empty(),
        };
        let told = threads().filter(|(_, of)| is_told(of.vcpu)).map(|(_, of)| of.tid);
        self.threads = Some(told.collect());
        Ok(())
    }

    fn is_chosen(&self, vcpu: VcpuId) -> bool {
        self.asked.vcpus.is_empty() || self.asked.vcpus.contains(&vcpu)
    }

    /// The time that is told of; all of the measured window if no stretch is asked for.
    #[must_use]
    pub fn stretch(&self) -> MeasuredWindow {
        self.stretch
    }

    /// Whether it is shorter than the run: then what was only counted over all of the run is not of it.
    #[must_use]
    pub fn is_stretch(&self) -> bool {
        self.begins_within || self.ends_within
    }

    /// Whether only some requests of these VMs are told: those of a stretch, of a vCPU, or slow ones.
    #[must_use]
    pub fn picks_requests(&self) -> bool {
        self.is_stretch() || self.has_limits()
    }

    /// Whether some requests of a stretch are not told, so that there is no rate of them.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.picks_vcpus() || self.asked.slower_than_ns.is_some()
    }

    /// Whether only some vCPUs are told of.
    #[must_use]
    pub fn picks_vcpus(&self) -> bool {
        !self.asked.vcpus.is_empty()
    }

    /// Whether a VM is told of.
    #[must_use]
    pub fn has_vm(&self, vm: VmIndex) -> bool {
        self.vms.get(vm.0).copied().unwrap_or(self.asked.vms.is_empty())
    }

    /// Whether a vCPU of a VM is told of.
    #[must_use]
    pub fn has_vcpu(&self, vm: VmIndex, vcpu: VcpuId) -> bool {
        self.has_vm(vm) && self.is_chosen(vcpu)
    }

    /// Whether a thread of a VM is told of.
    #[must_use]
    pub fn has_thread(&self, tid: Tid) -> bool {
        self.threads.as_ref().is_none_or(|threads| threads.contains(&tid))
    }

    /// The part of a span that lies in the stretch. Spans before and after the measured window are of no other part.
    pub(super) fn cut<'a>(&self, span: &'a Span) -> Option<Cow<'a, Span>> {
        let start =
            if self.begins_within { span.start.max(self.stretch.start) } else { span.start };
        let end = if self.ends_within { span.end.min(self.stretch.end) } else { span.end };
        if (start, end) == (span.start, span.end) {
            return Some(Cow::Borrowed(span));
        }
        (start < end).then(|| Cow::Owned(span.clipped(start, end)))
    }

    /// Whether what happened at this instant is of the stretch, if it may be of a part at all.
    pub(super) fn has(&self, time: HostNs) -> bool {
        self.may_have(time, time)
    }

    /// Whether what may have happened anywhere between these instants may be of the stretch.
    pub(super) fn may_have(&self, first: HostNs, last: HostNs) -> bool {
        let is_before = self.begins_within && last < self.stretch.start;
        let is_after = self.ends_within && first >= self.stretch.end;
        !is_before && !is_after
    }

    /// Why a request is not told; `None` if it is. `placed` is when it began and how long it took, if that is known.
    pub(super) fn leaves_out(
        &self,
        vm: VmIndex,
        request: &GuestRequest,
        placed: Option<(HostNs, u64)>,
    ) -> Option<WhyNot> {
        let vcpus = [request.vcpu_queued(), request.vcpu_issued(), request.vcpu_completed()];
        if !self.has_vm(vm) {
            return Some(WhyNot::OtherVm);
        }
        if !vcpus.iter().any(|vcpu| self.is_chosen(VcpuId(*vcpu))) {
            return Some(WhyNot::OtherVcpu);
        }
        let slower_than_ns = self.asked.slower_than_ns.unwrap_or(0);
        match placed {
            None if self.is_stretch() || slower_than_ns > 0 => Some(WhyNot::Unplaced),
            None => None,
            Some((start, _)) if !self.has(start) => Some(WhyNot::OtherTime),
            Some((_, took_ns)) => (took_ns < slower_than_ns).then_some(WhyNot::Faster),
        }
    }

    /// Whether an I/O of the host's is told; of one without an end it is not known how long it took.
    pub(super) fn has_host_io(&self, vm: VmIndex, submitted: HostNs, took_ns: Option<u64>) -> bool {
        let is_slow = self.asked.slower_than_ns.is_none_or(|least_ns| took_ns >= Some(least_ns));
        self.has_vm(vm) && !self.picks_vcpus() && self.has(submitted) && is_slow
    }

    /// Fails if the run was over before the stretch began, now that its end is known.
    pub(super) fn check_end(&self, window_end: HostNs) -> Result<(), NothingChosen> {
        let HostNs(start_ns) = self.window.start;
        if !self.begins_within || window_end > self.stretch.start {
            return Ok(());
        }
        let since_ns = self.stretch.start.0.saturating_sub(start_ns);
        Err(NothingChosen::Beyond { since_ns, length_ns: window_end.since_ns(self.window.start) })
    }

    /// Where the stretch ends in a run whose measured window ends there.
    #[must_use]
    pub fn end(&self, window_end: HostNs) -> HostNs {
        if self.ends_within { self.stretch.end.min(window_end) } else { window_end }
    }

    /// What a reader is told of it; `None` if all of the run is told. The measured window began and ended there.
    #[must_use]
    pub fn told(&self, [start, window_end]: [HostNs; 2], left_out: LeftOut) -> Option<Selection> {
        let Asked { vms, vcpus, slower_than_ns, .. } = &self.asked;
        let since_ns = if self.begins_within { self.stretch.start.since_ns(start) } else { 0 };
        self.is_asked.then(|| Selection {
            since_ns,
            until_ns: self.end(window_end).since_ns(start),
            of_ns: window_end.since_ns(start),
            vms: vms.clone(),
            vcpus: vcpus.clone(),
            slower_than_ns: *slower_than_ns,
            left_out,
        })
    }
}

/// Why a request is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhyNot {
    OtherVm,
    OtherVcpu,
    OtherTime,
    Faster,
    /// It has no place on the host's clock.
    Unplaced,
}

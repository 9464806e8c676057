//! The observers of one analysis, and what of the run they are told.

use super::chosen::{Chosen, WhyNot};
use super::observer::Observer;
use crate::summary::VmIndex;
use crate::summary::selection::{LeftOut, LeftOutBy};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use vslice_core::host_view::ViewedIo;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::samples::SampleItem;
use vslice_core::timeline::{Exit, LockWait, Span};
use vslice_core::units::HostNs;
use vslice_wire::Dropped;

/// They are told by whoever reads a stream, one thing after the other.
pub(super) struct Observers<'o> {
    observers: RefCell<Vec<&'o mut dyn Observer>>,
    chosen: Chosen,
    left_out: Cell<LeftOut>,
}

impl<'o> Observers<'o> {
    pub(super) fn new(observers: &'o mut [&mut dyn Observer], chosen: Chosen) -> Observers<'o> {
        let each = observers.iter_mut().map(|observer| &mut **observer as &'o mut dyn Observer);
        Observers { observers: RefCell::new(each.collect()), chosen, left_out: Cell::default() }
    }

    /// What is told whatever the part is.
    pub(super) fn tell(&self, tell: impl Fn(&mut dyn Observer)) {
        self.observers.borrow_mut().iter_mut().for_each(|observer| tell(*observer));
    }

    /// What of the run was not told.
    pub(super) fn left_out(&self) -> LeftOut {
        self.left_out.get()
    }

    fn leave_out(&self, count: impl FnOnce(&mut LeftOut)) {
        let mut left_out = self.left_out.get();
        count(&mut left_out);
        self.left_out.set(left_out);
    }

    pub(super) fn sample(&self, vm: VmIndex, sample: &SampleItem) {
        if self.chosen.has_vm(vm) {
            self.tell(|observer| observer.sample(vm, sample));
        }
    }

    pub(super) fn span(&self, span: &Span) {
        let cut = Some(span).filter(|span| self.chosen.has_thread(span.tid));
        if let Some(span) = cut.and_then(|span| self.chosen.cut(span)) {
            self.tell(|observer| observer.span(&span));
        }
    }

    pub(super) fn lock_wait(&self, wait: &LockWait) {
        if self.chosen.has_thread(wait.tid) && self.chosen.has(wait.start) {
            self.tell(|observer| observer.lock_wait(wait));
        }
    }

    pub(super) fn exit(&self, exit: &Exit) {
        if self.chosen.has_thread(exit.tid) && self.chosen.has(exit.start) {
            self.tell(|observer| observer.exit(exit));
        } else {
            self.leave_out(|of| of.exits += 1);
        }
    }

    pub(super) fn request(&self, vm: VmIndex, breakdown: &Breakdown) {
        let placed = Some((breakdown.start, breakdown.latency_ns()));
        match self.chosen.leaves_out(vm, &breakdown.request, placed) {
            Some(why) => self.leave_out_request(&breakdown.request, why),
            None => self.tell(|observer| observer.request(vm, breakdown)),
        }
    }

    pub(super) fn unplaced_request(&self, vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        match self.chosen.leaves_out(vm, request, None) {
            Some(why) => self.leave_out_request(request, why),
            None => self.tell(|observer| observer.unplaced_request(vm, request, why)),
        }
    }

    fn leave_out_request(&self, request: &GuestRequest, why: WhyNot) {
        self.leave_out(|left_out| {
            let LeftOut { reader, observed, .. } = left_out;
            let by: &mut LeftOutBy = if request.read().is_some() { reader } else { observed };
            let count = match why {
                WhyNot::OtherVm => &mut by.other_vms,
                WhyNot::OtherVcpu => &mut by.other_vcpus,
                WhyNot::OtherTime => &mut by.outside,
                WhyNot::Faster => &mut by.faster,
                WhyNot::Unplaced => &mut by.unplaced,
            };
            *count += 1;
        });
    }

    pub(super) fn host_io(&self, vm: VmIndex, disk: Option<usize>, io: &ViewedIo) {
        if self.chosen.has_host_io(vm, io.submitted, io.latency_ns()) {
            self.tell(|observer| observer.host_io(vm, disk, io));
        } else {
            self.leave_out(|of| of.host_io += 1);
        }
    }

    /// `time` is when on the host's clock they were dropped, as far as that is known.
    pub(super) fn dropped_requests(&self, vm: VmIndex, dropped: &Dropped, time: &Range<HostNs>) {
        if self.may_be_told(vm, time) {
            self.tell(|observer| observer.dropped_requests(vm, dropped));
        }
    }

    /// As [`dropped_requests`](Observers::dropped_requests).
    pub(super) fn lost_observed(&self, vm: VmIndex, lost: &Dropped, time: &Range<HostNs>) {
        if self.may_be_told(vm, time) {
            self.tell(|observer| observer.lost_observed(vm, lost));
        }
    }

    fn may_be_told(&self, vm: VmIndex, time: &Range<HostNs>) -> bool {
        self.chosen.has_vm(vm) && self.chosen.may_have(time.start, time.end)
    }
}

//! The guests of a run while it is read: their clocks, what checks those, and their requests.

mod of_threads;

use self::of_threads::GuestsOfThreads;
use super::clocks::{self, GuestClocks};
use super::hog_check::HogChecks;
use super::observed::PlacedObserved;
use super::observer::MeasuredWindow;
use super::observers::Observers;
use super::pulled::{Pulled, SharedPulled};
use super::requests::PlacedRequests;
use super::{AnalyseError, optional};
use crate::summary::clock::{ClocksApart, VcpuClock};
use crate::summary::{VmIndex, Warning};
use std::collections::BTreeMap;
use std::rc::Rc;
use vslice_core::clock::RoundTrips;
use vslice_core::host_event::{BlockEvent, HostEvent, HostEventKind};
use vslice_core::join::{Clocks, Join, ObservedJoin, Submitter, SyncCall};
use vslice_core::timeline::{Span, StackTable, Tasks};
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_trace::manifest::{Manifest, VmRecord};
use vslice_trace::{ClockSample, RunDir, StoreError, StreamReader, Tail, VmName, recorded_disks};

/// All guests of a run.
pub(super) struct Guests<'o> {
    guests: Vec<Guest<'o>>,
    observers: Rc<Observers<'o>>,
    of_thread: GuestsOfThreads,
    /// How far recording has come. The joins of a guest are told when something comes for it, and not of each event.
    now: HostNs,
}

/// One guest.
struct Guest<'o> {
    vm: VmIndex,
    /// `None` if nobody has exchanged a clock with it.
    clock: Option<CheckedClocks>,
    requests: Option<GuestRequests<'o>>,
    observed: Option<GuestObserved<'o>>,
    warnings: Vec<Warning>,
    is_torn: bool,
}

/// The clocks of a guest, and what is held against them.
struct CheckedClocks {
    trips: RoundTrips,
    clocks: GuestClocks,
    hogs: Option<HogChecks>,
}

/// The requests of a guest on their way.
struct GuestRequests<'o> {
    join: Join<PlacedRequests<'o>>,
    /// The host's disk that they read.
    device: Option<u32>,
    pulled: SharedPulled,
}

/// The observed requests of a guest on their way.
struct GuestObserved<'o> {
    join: ObservedJoin<PlacedObserved<'o>>,
    /// The VMM's process: others that work for the VM have files of their own.
    vmm: Tid,
    pulled: SharedPulled,
}

/// What the clocks of a run's guests come to, and what there is to say of their streams.
#[derive(Debug, Default)]
pub(super) struct GuestsEnd {
    pub(super) clocks: Vec<VcpuClock>,
    pub(super) clocks_apart: Vec<ClocksApart>,
    pub(super) warnings: Vec<Warning>,
    pub(super) is_torn: bool,
}

/// The guests of a run before its events are read: their clocks, and what checks those.
pub(super) struct GuestsAhead<'o> {
    guests: Vec<Guest<'o>>,
}

impl<'o> GuestsAhead<'o> {
    /// Those of a run.
    ///
    /// # Errors
    /// When a stream cannot be read.
    pub(super) fn open(run: &RunDir, manifest: &Manifest) -> Result<GuestsAhead<'o>, AnalyseError> {
        let records = manifest.vms.iter().enumerate();
        let guests = records.map(|(index, vm)| Guest::open(run, manifest, VmIndex(index), vm));
        Ok(GuestsAhead { guests: guests.collect::<Result<_, AnalyseError>>()? })
    }

    /// Whether a hog's timeslices may make the clock better by which its guest's requests are placed. They are known
    /// once all switches are, and requests are laid over the spans between those.
    pub(super) fn may_narrow(&self, manifest: &Manifest) -> bool {
        let has_requests = |vm: &VmRecord| vm.reader_vcpu.is_some() || vm.observation.is_some();
        let mut guests = self.guests.iter().zip(&manifest.vms);
        guests.any(|(guest, vm)| has_requests(vm) && guest.may_narrow())
    }

    /// Takes the next of all events.
    pub(super) fn check_by_hogs(&mut self, event: &HostEvent) {
        self.guests.iter_mut().for_each(|guest| guest.check_by_hogs(event));
    }

    /// Makes the clocks better: all events have been taken.
    ///
    /// # Errors
    /// When the gaps of a hog cannot be read.
    pub(super) fn conclude_hogs(&mut self) -> Result<(), StoreError> {
        self.guests.iter_mut().try_for_each(Guest::conclude_hogs)
    }

    /// Opens their requests, which are placed by the best clocks that there are.
    ///
    /// # Errors
    /// When a stream cannot be read.
    pub(super) fn with_requests(
        mut self,
        run: &RunDir,
        manifest: &Manifest,
        observers: &Rc<Observers<'o>>,
    ) -> Result<Guests<'o>, AnalyseError> {
        for (guest, vm) in self.guests.iter_mut().zip(&manifest.vms) {
            guest.open_requests(run, vm, observers)?;
            guest.open_observed(run, vm, observers)?;
        }
        let is_observed = |place: usize| self.guests[place].observed.is_some();
        let of_thread = GuestsOfThreads::of(manifest, is_observed);
        let (guests, observers) = (self.guests, Rc::clone(observers));
        Ok(Guests { guests, observers, of_thread, now: HostNs(0) })
    }
}

/// Guests' requests are laid over what the host's threads did.
impl Guests<'_> {
    /// Takes the next event, in order of time, with the threads as they were before it.
    pub(super) fn event(&mut self, event: &HostEvent, tasks: &Tasks, stacks: &StackTable) {
        let Guests { guests, of_thread, .. } = self;
        match &event.kind {
            HostEventKind::Switch(switch) => {
                let threads = [switch.prev, switch.next];
                of_thread.of_vcpus(threads).for_each(|place| guests[place].check_by_hogs(event));
                for place in of_thread.of_vmms(threads, tasks) {
                    guests[place].threads(event, tasks, stacks);
                }
            }
            HostEventKind::Waking { tid, .. } => {
                for place in of_thread.of_vmms([*tid; 2], tasks) {
                    guests[place].threads(event, tasks, stacks);
                }
            }
            HostEventKind::Exit { .. } => {
                guests.iter_mut().for_each(|guest| guest.threads(event, tasks, stacks));
            }
            HostEventKind::Block(_) => {
                let now = self.now;
                guests.iter_mut().for_each(|guest| guest.io(now, event, tasks));
            }
            HostEventKind::Lost { .. } => {
                guests.iter_mut().for_each(|guest| guest.check_by_hogs(event));
                self.loss(event);
            }
            HostEventKind::Comm { .. }
            | HostEventKind::Group { .. }
            | HostEventKind::Fork { .. }
            | HostEventKind::Kvm { .. } => {}
        }
        self.now = event.time;
    }

    /// Takes a loss that no event tells of.
    pub(super) fn loss(&mut self, loss: &HostEvent) {
        let now = self.now;
        self.guests.iter_mut().for_each(|guest| guest.io(now, loss, &Tasks::default()));
        self.now = loss.time;
    }

    /// Takes the next span of any thread.
    pub(super) fn span(&mut self, span: &Span) {
        if let Some(place) = self.of_thread.of_vcpu(span.tid) {
            self.guests[place].span(span, self.now, &self.observers);
        }
    }

    /// No event and no span will come any more.
    ///
    /// # Errors
    /// When the rest of a stream cannot be read.
    pub(super) fn finish(self, manifest: &Manifest) -> Result<GuestsEnd, StoreError> {
        let mut end = GuestsEnd::default();
        for (mut guest, vm) in self.guests.into_iter().zip(&manifest.vms) {
            guest.advance(self.now);
            guest.finish(vm, &self.observers, &mut end)?;
        }
        Ok(end)
    }
}

impl<'o> Guest<'o> {
    fn open(
        run: &RunDir,
        manifest: &Manifest,
        index: VmIndex,
        vm: &VmRecord,
    ) -> Result<Guest<'o>, AnalyseError> {
        let notices = vm.guest.iter().flat_map(|guest| &guest.notices);
        let notice = |notice| Warning::Notice { text: format!("{}: {notice}", vm.name) };
        let warnings = notices.map(notice).collect();
        let mut guest = Guest {
            vm: index,
            clock: None,
            requests: None,
            observed: None,
            warnings,
            is_torn: false,
        };
        let name = VmName::try_from(vm.name.as_str())?;
        if let Some((trips, tail)) = optional(round_trips(run, &name).map(Some))? {
            guest.warn_of_tail(vm, "clock exchanges", tail);
            let start = MeasuredWindow::of(manifest).start;
            let mut clocks = clocks::read(vm, &trips, &manifest.host_tsc, start);
            let notices = std::mem::take(&mut clocks.notices);
            guest.warnings.extend(notices.into_iter().map(|text| Warning::Notice { text }));
            let hogs = HogChecks::open(run, &name, vm, &clocks)?;
            guest.clock = Some(CheckedClocks { trips, clocks, hogs });
        }
        Ok(guest)
    }

    fn may_narrow(&self) -> bool {
        self.clock.as_ref().is_some_and(|CheckedClocks { trips, clocks, hogs }| {
            hogs.as_ref().is_some_and(|hogs| hogs.may_narrow(clocks, trips))
        })
    }

    fn check_by_hogs(&mut self, event: &HostEvent) {
        if let Some(hogs) = self.clock.as_mut().and_then(|clock| clock.hogs.as_mut()) {
            hogs.push(event);
        }
    }

    /// Tells the joins that nothing will come any more that happened before `now`.
    fn advance(&mut self, now: HostNs) {
        if let Some(requests) = &mut self.requests {
            requests.join.advance(now);
        }
        if let Some(observed) = &mut self.observed {
            observed.join.advance(now);
        }
    }

    /// Takes a block event or a loss, `now` being the time of the event before it.
    fn io(&mut self, now: HostNs, event: &HostEvent, tasks: &Tasks) {
        self.advance(now);
        let submitter = |block: &BlockEvent| {
            let is_own = tasks.vm_of(block.tid) == Some(self.vm);
            if is_own { Submitter::OwnVm } else { Submitter::Other }
        };
        match &event.kind {
            HostEventKind::Block(block) => {
                if let Some(observed) = &mut self.observed {
                    observed.join.push_io(event.time, block, submitter(block));
                }
                if let Some(requests) = &mut self.requests
                    && requests.device == Some(block.device)
                {
                    requests.join.push_io(event.time, block, submitter(block));
                }
            }
            HostEventKind::Lost { until, .. } => {
                if let Some(observed) = &mut self.observed {
                    observed.join.lost(event.time, *until);
                }
                if let Some(requests) = &mut self.requests {
                    requests.join.lost(event.time, *until);
                }
            }
            _ => {}
        }
        self.advance(event.time);
    }

    fn threads(&mut self, event: &HostEvent, tasks: &Tasks, stacks: &StackTable) {
        if let Some(observed) = &mut self.observed {
            observed.threads(event, tasks, stacks);
        }
    }

    /// Takes a span of one of its vCPUs.
    fn span(&mut self, span: &Span, now: HostNs, observers: &Observers<'_>) {
        let vm = self.vm;
        self.advance(now);
        if let Some(requests) = &mut self.requests {
            requests.join.push_span(span, &mut |breakdown| observers.request(vm, &breakdown));
        }
        if let Some(observed) = &mut self.observed {
            observed.join.push_span(span, &mut |breakdown| observers.request(vm, &breakdown));
        }
        if let Some(clock) = &mut self.clock {
            clock.clocks.tsc_offset_checks.iter_mut().for_each(|(_, check)| check.push(span));
        }
    }

    fn conclude_hogs(&mut self) -> Result<(), StoreError> {
        let Some(CheckedClocks { trips, clocks, hogs }) = &mut self.clock else { return Ok(()) };
        hogs.take().map_or(Ok(()), |hogs| hogs.conclude(clocks, trips))
    }

    fn open_requests(
        &mut self,
        run: &RunDir,
        vm: &VmRecord,
        observers: &Rc<Observers<'o>>,
    ) -> Result<(), AnalyseError> {
        let Some(clock) = self.clock.as_ref().filter(|_| vm.reader_vcpu.is_some()) else {
            return Ok(());
        };
        let name = VmName::try_from(vm.name.as_str())?;
        let clocks = clock.clocks.clocks.clone();
        let vcpus = vcpus(vm, &clocks);
        let requests = PlacedRequests::open(run, (self.vm, &name), clocks, observers)?;
        let pulled = requests.pulled();
        let join = Join::of_vcpus(vcpus, requests);
        let join = match recorded_disks::target(vm) {
            Some(target) => join.with_target(target),
            None => join,
        };
        let whole = vm.disk.as_ref().and_then(|disk| disk.whole_disk.as_ref());
        let device = whole.map(|whole| whole.device);
        self.requests = Some(GuestRequests { join, device, pulled });
        Ok(())
    }

    fn open_observed(
        &mut self,
        run: &RunDir,
        vm: &VmRecord,
        observers: &Rc<Observers<'o>>,
    ) -> Result<(), AnalyseError> {
        // A run whose collector was killed has the stream, whatever its manifest says.
        let Some(clock) = &self.clock else { return Ok(()) };
        let name = VmName::try_from(vm.name.as_str())?;
        let clocks = clock.clocks.clocks.clone();
        let vcpus = vcpus(vm, &clocks);
        let requests = PlacedObserved::open(run, (self.vm, &name), clocks, observers).map(Some);
        let Some(requests) = optional(requests)? else { return Ok(()) };
        let pulled = requests.pulled();
        let join = ObservedJoin::new(vcpus, requests)
            .with_disks(recorded_disks::observed(vm))
            .with_completions(recorded_disks::completions(vm));
        self.observed = Some(GuestObserved { join, vmm: vm.pid, pulled });
        Ok(())
    }

    /// Tells of the observed requests that are left.
    fn finish_observed(
        &mut self,
        vm: &VmRecord,
        observers: &Observers<'o>,
    ) -> Result<(), StoreError> {
        let Some(GuestObserved { join, pulled, .. }) = self.observed.take() else { return Ok(()) };
        let index = self.vm;
        join.finish(&mut |breakdown| observers.request(index, &breakdown));
        let placed_by = self.end_of(vm, "observed requests", &pulled)?;
        for row in self.clock.iter_mut().flat_map(|clock| &mut clock.clocks.rows) {
            row.observed = placed_by.get(&row.vcpu).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn finish(
        mut self,
        vm: &VmRecord,
        observers: &Observers<'o>,
        end: &mut GuestsEnd,
    ) -> Result<(), StoreError> {
        self.conclude_hogs()?;
        if let Some(GuestRequests { join, pulled, .. }) = self.requests.take() {
            let index = self.vm;
            join.finish(&mut |breakdown| observers.request(index, &breakdown));
            let placed_by = self.end_of(vm, "requests", &pulled)?;
            for row in self.clock.iter_mut().flat_map(|clock| &mut clock.clocks.rows) {
                row.requests = placed_by.get(&row.vcpu).copied().unwrap_or(0);
            }
        }
        self.finish_observed(vm, observers)?;
        if let Some(CheckedClocks { mut clocks, .. }) = self.clock {
            for (row, check) in clocks.tsc_offset_checks {
                clocks.rows[row].kvm_check = check.check;
            }
            end.clocks.extend(clocks.rows);
            end.clocks_apart.extend(clocks.apart);
        }
        end.warnings.extend(self.warnings);
        end.is_torn |= self.is_torn;
        Ok(())
    }

    /// How many requests were placed by each vCPU's clock, when nothing of a stream is left.
    fn end_of(
        &mut self,
        vm: &VmRecord,
        what: &str,
        pulled: &SharedPulled,
    ) -> Result<BTreeMap<VcpuId, u64>, StoreError> {
        let Pulled { placed_by, tail, error } = pulled.take();
        if let Some(error) = error {
            return Err(error);
        }
        if let Some(tail) = tail {
            self.warn_of_tail(vm, what, tail);
        }
        Ok(placed_by)
    }

    fn warn_of_tail(&mut self, vm: &VmRecord, what: &str, tail: Tail) {
        let Tail::Torn { bytes } = tail else { return };
        self.is_torn = true;
        // Without a half block nothing is known to be missing; that the run did not end is said anyway.
        if bytes > 0 {
            let text = format!(
                "{}: the stored {what} were cut off; {bytes} bytes after the last whole block were \
                 left out",
                vm.name
            );
            self.warnings.push(Warning::Notice { text });
        }
    }
}

impl GuestObserved<'_> {
    /// Tells the join of the VMM's threads that fall asleep in calls that flush a file, and of their waking.
    fn threads(&mut self, event: &HostEvent, tasks: &Tasks, stacks: &StackTable) {
        let is_own = |tid: Tid| tasks.process_of(tid) == Some(self.vmm);
        match &event.kind {
            HostEventKind::Switch(switch) => {
                if is_own(switch.prev) {
                    if switch.stack.is_some() {
                        self.join.recorded(event.time, switch.prev);
                    }
                    if let Some(call) = SyncCall::of(switch, stacks) {
                        self.join.asleep(event.time, switch.prev, call);
                    }
                }
                if is_own(switch.next) {
                    self.join.awake(event.time, switch.next);
                }
            }
            HostEventKind::Waking { tid, .. } if is_own(*tid) => self.join.awake(event.time, *tid),
            HostEventKind::Exit { tid } => self.join.ended(*tid),
            _ => {}
        }
    }
}

/// The vCPUs that have a clock, each with its thread.
fn vcpus(vm: &VmRecord, clocks: &Clocks) -> Vec<(VcpuId, Tid)> {
    let thread = |(vcpu, _)| {
        let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu))?;
        Some((vcpu, thread.tid))
    };
    clocks.iter().filter_map(thread).collect()
}

/// The clock exchanges with one guest, and how their stream ends.
fn round_trips(run: &RunDir, vm: &VmName) -> Result<(RoundTrips, Tail), StoreError> {
    let mut stream = StreamReader::<ClockSample>::open(&run.clock_path(vm))?;
    let mut trips = RoundTrips::default();
    while let Some(block) = stream.next_block()? {
        block.iter().for_each(|sample| trips.push(sample.vcpu, sample.exchange));
    }
    Ok((trips, stream.tail().unwrap_or(Tail::Finished)))
}

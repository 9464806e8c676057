//! Adds up what agents observed, one request at a time.

use super::model::{
    OPERATIONS_MAX, Observed, ObservedCost, ObservedDisk, ObservedGuest, ObservedOperation,
};
use super::operation::{Key, OfGuest, OperationTally, waiter};
use super::process::Tasks;
use super::reader::{ReadPlaces, ReaderTally};
use super::under_way;
use crate::summary::names::{Directory, VmIndex};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::text::harmless;
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::observation::{
    ObservationRecord, ObservedDeviceRecord, ObservedOthersRecord, completion_vcpu_name,
};
use vslice_wire::{Dropped, ObservedRequest};

/// What is known of what was observed in a guest before its requests are read.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What the manifest says of it.
    pub record: ObservationRecord,
    /// The host's disks that its disks are on, by the places that `record` gives them.
    pub host_disks: Vec<Option<String>>,
    /// Where its reader's requests lie on its disk.
    pub reader: Option<ReadPlaces>,
    /// Why its agent could not observe, if it said that it cannot.
    pub unobserved: Option<String>,
}

/// All guests that observe.
#[derive(Debug, Default)]
pub(crate) struct ObservedTally {
    guests: BTreeMap<VmIndex, GuestTally>,
    vcpus: FxHashMap<Tid, VcpuId>,
}

#[derive(Debug, Default)]
struct GuestTally {
    observation: Observation,
    tasks: Tasks,
    operations: BTreeMap<Key, OperationTally>,
    count: u64,
    beyond: u64,
    lost_intervals: u64,
    lost_events: u64,
    reader: Option<ReaderTally>,
}

impl ObservedTally {
    /// Of these guests; `vcpus` are the vCPUs of all VMs by their threads.
    pub(crate) fn new(
        observations: BTreeMap<VmIndex, Observation>,
        vcpus: FxHashMap<Tid, VcpuId>,
    ) -> ObservedTally {
        let guest = |observation: Observation| GuestTally {
            tasks: Tasks::of(&observation.record.tasks),
            reader: observation.reader.clone().map(ReaderTally::new),
            observation,
            ..GuestTally::default()
        };
        let guests = observations.into_iter().map(|(vm, of)| (vm, guest(of))).collect();
        ObservedTally { guests, vcpus }
    }

    /// Takes a request of a guest: one that was observed, or one of a reader that is to be held against those.
    pub(crate) fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        match &breakdown.request {
            GuestRequest::Read(request) => {
                let reader = self.guests.get_mut(&vm).and_then(|guest| guest.reader.as_mut());
                if let Some(reader) = reader {
                    reader.read(request, breakdown);
                }
            }
            GuestRequest::Observed(request) => self.observed(vm, request, breakdown),
        }
    }

    fn observed(&mut self, vm: VmIndex, request: &ObservedRequest, breakdown: &Breakdown) {
        let ObservedTally { guests, vcpus } = self;
        let guest = guests.entry(vm).or_default();
        guest.count += 1;
        if guest.hides_ends() && request.rests_on_others() {
            if let Some(operation) = guest.operation(request) {
                operation.may_have_anothers_end(request);
            }
            return;
        }
        if let Some(reader) = &mut guest.reader {
            reader.observed(request, breakdown);
        }
        let process = guest.tasks.of_number(request.task);
        let vcpu_of = |breakdown: &Breakdown, pcpu: PcpuId| {
            waiter(breakdown, pcpu, |tid| vcpus.get(&tid).copied())
        };
        if let Some(operation) = guest.operation(request) {
            operation.add(vm, request, breakdown, process, &vcpu_of);
        }
    }

    /// Takes an observed request that has no place on the host's clock.
    pub(crate) fn unplaced(&mut self, vm: VmIndex, request: &ObservedRequest, why: Unplaced) {
        let guest = self.guests.entry(vm).or_default();
        guest.count += 1;
        if let Some(operation) = guest.operation(request) {
            operation.unplaced(request, why);
        }
    }

    /// Takes what a guest could not record.
    pub(crate) fn lost(&mut self, vm: VmIndex, lost: &Dropped) {
        let guest = self.guests.entry(vm).or_default();
        // Where no event was lost, only the end of some was not seen: that is told by itself.
        guest.lost_intervals += u64::from(lost.count > 0);
        guest.lost_events = guest.lost_events.saturating_add(lost.count);
    }

    /// What was observed; `None` if nobody observed anything.
    pub(crate) fn finish(self, start: HostNs, directory: &Directory<'_>) -> Option<Observed> {
        if self.guests.is_empty() {
            return None;
        }
        let (mut guests, mut operations) = (Vec::new(), Vec::new());
        for (vm, guest) in self.guests {
            let rows = guest.rows(vm, start, directory);
            guests.push(guest.into_row(directory.vm_name(vm), &rows));
            operations.extend(rows);
        }
        operations.sort_by_key(|row| (!row.is_sync, Reverse(row.matters_ns), Reverse(row.count)));
        let answer = operations.iter().position(|row| row.placed() > 0);
        Some(Observed { answer, guests, operations })
    }
}

/// Why a guest was not observed whose agent does not say why.
const NO_DISK_TOLD: &str = "its agent told of no disk";

impl GuestTally {
    /// Whether of some requests it was hidden that they ended. The end of another that came later may then have been
    /// taken for theirs, after a time that none of them took.
    fn hides_ends(&self) -> bool {
        let hidden = self.observation.record.end.as_ref().and_then(|end| end.hidden);
        hidden.is_some_and(|hidden| hidden.completed_count > 0)
    }

    fn operation(&mut self, request: &ObservedRequest) -> Option<&mut OperationTally> {
        let key = Key::of(request);
        if self.operations.len() >= OPERATIONS_MAX && !self.operations.contains_key(&key) {
            self.beyond += 1;
            return None;
        }
        Some(self.operations.entry(key).or_insert_with(OperationTally::new))
    }

    fn device_name(&self, number: u16) -> String {
        device_name(&self.observation.record, number)
    }

    fn rows(
        &self,
        vm: VmIndex,
        start: HostNs,
        directory: &Directory<'_>,
    ) -> Vec<ObservedOperation> {
        let others = &self.observation.record.others;
        let has_faster = others.iter().any(|of| of.count > 0);
        let guest = OfGuest { vm, start, tasks: &self.tasks, directory, has_faster };
        let faster = |key: &Key| others.iter().find(|of| Key::of_others(of) == *key);
        let row = |(key, of): (&Key, &OperationTally)| {
            of.row(*key, self.device_name(key.device), faster(key), &guest)
        };
        let mut rows: Vec<ObservedOperation> = self.operations.iter().map(row).collect();
        let none = OperationTally::new();
        let is_unseen = |of: &&ObservedOthersRecord| {
            of.count > 0 && !self.operations.contains_key(&Key::of_others(of))
        };
        let room = OPERATIONS_MAX.saturating_sub(rows.len());
        for of in others.iter().filter(is_unseen).take(room) {
            let key = Key::of_others(of);
            rows.push(none.row(key, self.device_name(of.device), Some(of), &guest));
        }
        rows
    }

    fn into_row(self, vm: String, rows: &[ObservedOperation]) -> ObservedGuest {
        let Observation { record, host_disks, unobserved, .. } = &self.observation;
        let faster = record.others.iter().fold(0, |sum: u64, of| sum.saturating_add(of.count));
        let made = self.count.saturating_add(faster);
        // A guest whose disks are known was looked at; one whose collector was killed may not have said.
        let was_looked_at = made > 0 || !record.devices.is_empty();
        let end = under_way::end(record, |number| self.device_name(number), &self.tasks, rows);
        let why = || unobserved.as_deref().map_or_else(|| NO_DISK_TOLD.to_owned(), harmless);
        ObservedGuest {
            vm,
            unobserved: (!was_looked_at).then(why),
            count: self.count,
            slower_than_us: record.slower_than_us,
            faster,
            beyond: self.beyond,
            lost_events: self.lost_events.max(record.lost_count),
            lost_intervals: self.lost_intervals.max(u64::from(record.lost_count > 0)),
            devices: record.devices.iter().map(|device| disk(device, host_disks)).collect(),
            cost: record.cost.map(|cost| ObservedCost {
                cpu_ns: cost.cpu_ns,
                cpu_ns_per_request: cost.cpu_ns.checked_div(made),
                events: cost.events_count,
                clock_read_ns: cost.clock_read_ns,
            }),
            end,
            reader: self.reader.map(ReaderTally::finish),
        }
    }
}

/// What a guest calls a disk.
pub(in crate::summary) fn device_name(record: &ObservationRecord, number: u16) -> String {
    match record.devices.iter().find(|device| device.number == number) {
        Some(device) => harmless(&device.name),
        None => format!("disk number {number}"),
    }
}

fn disk(device: &ObservedDeviceRecord, host_disks: &[Option<String>]) -> ObservedDisk {
    let host_disk = device.disk.and_then(|place| host_disks.get(place).cloned().flatten());
    let unknown = || {
        let missing = device.disk_missing.as_deref().map(harmless);
        missing.unwrap_or_else(|| "the host's disk that it is on is not known".to_owned())
    };
    ObservedDisk {
        name: harmless(&device.name),
        size_bytes: device.size_bytes,
        io_scheduler: device.io_scheduler.as_deref().map(harmless),
        hardware_queues: device.hardware_queues,
        completion_vcpu: completion_vcpu_name(device.completion_vcpu).to_owned(),
        host_disk_unknown: host_disk.is_none().then(unknown),
        host_disk,
    }
}

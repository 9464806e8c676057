//! What a session keeps of what its guest observes: the requests go to the sink, everything else is kept
//! here, and all of it has a bound, as the guest is not to be trusted.

use std::collections::BTreeMap;
use vslice_core::text::harmless;
use vslice_spec::quantity::bytes;
use vslice_trace::ObservedItem;
use vslice_trace::observation::{
    IssueRecord, ObservationRecord, ObservedCostRecord, ObservedDeviceRecord, ObservedEndRecord,
    ObservedOthersRecord, ObservedTaskRecord, UnderWayRecord,
};
use vslice_wire::{
    BlockOperation, Dropped, GuestTicks, Observed, ObservedBlock, ObservedCost, ObservedDevice,
    ObservedEnd, ObservedOthers, ObservedTask, ObservedUnderWay,
};

/// What one guest may fill of its stream; beyond it goes a block at most. Of 12 bytes for a request, as most
/// loads need, it takes 20,000 a second an hour; a guest that wants to can need 75.
const STREAM_BYTES_MAX: u64 = 800_000_000;
/// Disks that are kept of one guest.
pub(crate) const DEVICES_KEPT_MAX: usize = 256;
/// Tasks that are kept of one guest: a few MB with the longest names.
pub(crate) const TASKS_KEPT_MAX: usize = 4096;

/// What one guest has observed, without its requests.
#[derive(Debug)]
pub struct Observation {
    devices: BTreeMap<u16, ObservedDevice>,
    tasks: BTreeMap<u32, ObservedTaskRecord>,
    others: BTreeMap<(u16, BlockOperation, bool), ObservedOthers>,
    cost: Option<ObservedCost>,
    end: Option<ObservedEnd>,
    bytes_max: u64,
    is_full: bool,
    settled: GuestTicks,
    requests_count: u64,
    lost_count: u64,
    /// Requests beyond those that are kept.
    left_out: Option<Dropped>,
    names_left_out_count: u64,
}

impl Default for Observation {
    fn default() -> Observation {
        Observation::keeping(STREAM_BYTES_MAX)
    }
}

impl Observation {
    /// Nothing yet, and no more once the sink has so many bytes.
    fn keeping(bytes_max: u64) -> Observation {
        Observation {
            devices: BTreeMap::new(),
            tasks: BTreeMap::new(),
            others: BTreeMap::new(),
            cost: None,
            end: None,
            bytes_max,
            is_full: false,
            settled: GuestTicks(0),
            requests_count: 0,
            lost_count: 0,
            left_out: None,
            names_left_out_count: 0,
        }
    }

    /// The disks.
    pub fn devices(&self) -> impl Iterator<Item = &ObservedDevice> {
        self.devices.values()
    }

    /// How many requests went to the sink.
    #[must_use]
    pub fn requests_count(&self) -> u64 {
        self.requests_count
    }

    /// Takes what the guest says; what the sink, which has so many bytes of it already, is to store of it comes
    /// back.
    pub fn take(&mut self, observed: Observed, stored_bytes: u64) -> Vec<ObservedItem> {
        self.is_full |= stored_bytes >= self.bytes_max;
        match observed {
            Observed::Devices(devices) => {
                devices.into_iter().for_each(|device| self.take_device(device));
                Vec::new()
            }
            Observed::Tasks(tasks) => {
                tasks.into_iter().for_each(|task| self.take_task(task));
                Vec::new()
            }
            Observed::Requests(block) => self.take_requests(block),
            Observed::Others(others) => {
                others.into_iter().for_each(|of| self.take_others(of));
                Vec::new()
            }
            Observed::Lost(lost) => {
                self.lost_count = self.lost_count.saturating_add(lost.count);
                if self.is_full {
                    self.leave_out(&lost);
                    return Vec::new();
                }
                vec![ObservedItem::Lost(lost)]
            }
            Observed::Cost(cost) => {
                self.cost = Some(cost);
                Vec::new()
            }
            Observed::End(end) => {
                self.end = Some(end);
                Vec::new()
            }
        }
    }

    /// What the sink is to store when nothing more will come: what was left out, and from when on requests may have
    /// been under way that have not been told. A guest that came to no end said so when it last settled any.
    pub fn end(&self) -> Vec<ObservedItem> {
        let open = match &self.end {
            Some(end) => end.under_way.iter().map(|row| row.queued).chain([end.at]).min(),
            None => Some(self.settled).filter(|_| self.requests_count > 0),
        };
        let open = open.map(|first| Dropped { count: 0, first, last: GuestTicks(u64::MAX) });
        self.left_out.into_iter().chain(open).map(ObservedItem::Lost).collect()
    }

    /// What there is to tell whoever reads the report.
    pub fn notices(&self) -> impl Iterator<Item = String> {
        let full = self.left_out.map(|_| {
            format!(
                "what it observed fills the {} that vslice keeps: what came after that counts as lost; \
                 --slower-than has only slow requests sent",
                bytes(self.bytes_max)
            )
        });
        let names = (self.names_left_out_count > 0).then(|| {
            format!(
                "it named more disks or processes than vslice keeps: {} are left out",
                self.names_left_out_count
            )
        });
        full.into_iter().chain(names)
    }

    /// For the manifest.
    #[must_use]
    pub fn record(&self, slower_than_us: u64) -> ObservationRecord {
        ObservationRecord {
            devices: self.devices.values().map(device_record).collect(),
            tasks: self.tasks.values().cloned().collect(),
            slower_than_us,
            others: self.others.values().map(others_record).collect(),
            requests_count: self.requests_count,
            lost_count: self.lost_count,
            cost: self.cost.map(|cost| ObservedCostRecord {
                cpu_ns: cost.cpu_ns,
                events_count: cost.events_count,
                lost_count: cost.lost_count,
                clock_read_ns: cost.clock_read_ns,
            }),
            end: self.end.as_ref().map(|end| self.end_record(end)),
        }
    }

    /// Rows of disks that it did not name tell nothing, nor do two of one disk and operation.
    fn end_record(&self, end: &ObservedEnd) -> ObservedEndRecord {
        let is_named = |row: &&ObservedUnderWay| self.devices.contains_key(&row.device);
        let rows = end.under_way.iter().filter(is_named);
        let rows: BTreeMap<_, UnderWayRecord> = rows
            .map(|row| ((row.device, row.operation, row.is_sync), under_way_record(row, end.at)))
            .collect();
        ObservedEndRecord {
            under_way: rows.into_values().collect(),
            earlier_count: end.earlier_count,
            passthrough_count: end.passthrough_count,
            late_count: end.late_count,
            hidden: Some(end.hidden.into()),
        }
    }

    fn take_requests(&mut self, block: ObservedBlock) -> Vec<ObservedItem> {
        if self.is_full {
            for request in block.requests {
                let (count, first, last) = (1, request.queued, request.completed);
                self.leave_out(&Dropped { count, first, last });
            }
            return Vec::new();
        }
        self.requests_count += block.requests.len() as u64;
        let requests = block.requests.into_iter().map(ObservedItem::Request);
        requests.chain(self.settle(block.settled)).collect()
    }

    /// A time that says nothing new is not stored: a guest may send nothing else.
    fn settle(&mut self, settled: GuestTicks) -> Option<ObservedItem> {
        if settled <= self.settled {
            return None;
        }
        self.settled = settled;
        Some(ObservedItem::Settled(settled))
    }

    fn leave_out(&mut self, lost: &Dropped) {
        let all = self.left_out.get_or_insert(Dropped { count: 0, ..*lost });
        all.count = all.count.saturating_add(lost.count);
        all.first = GuestTicks(all.first.0.min(lost.first.0));
        all.last = GuestTicks(all.last.0.max(lost.last.0));
    }

    fn take_device(&mut self, device: ObservedDevice) {
        let device = ObservedDevice {
            name: harmless(&device.name),
            serial: harmless(&device.serial),
            address: harmless(&device.address),
            io_scheduler: harmless(&device.io_scheduler),
            ..device
        };
        if self.devices.len() < DEVICES_KEPT_MAX || self.devices.contains_key(&device.number) {
            self.devices.insert(device.number, device);
        } else {
            self.names_left_out_count += 1;
        }
    }

    fn take_task(&mut self, task: ObservedTask) {
        let mut told = task_record(&task);
        if let Some(known) = self.tasks.get(&told.number).filter(|known| known.pid == told.pid) {
            let before = [&known.title, &known.title_before].into_iter().flatten();
            let is_other = |title: &&String| Some(*title) != told.title.as_ref();
            told.title_before = before.into_iter().find(is_other).cloned();
        }
        if self.tasks.len() < TASKS_KEPT_MAX || self.tasks.contains_key(&told.number) {
            self.tasks.insert(told.number, told);
        } else {
            self.names_left_out_count += 1;
        }
    }

    /// Counts of disks that it did not name tell nothing.
    fn take_others(&mut self, of: ObservedOthers) {
        if self.devices.contains_key(&of.device) {
            self.others.insert((of.device, of.operation, of.is_sync), of);
        }
    }
}

fn device_record(device: &ObservedDevice) -> ObservedDeviceRecord {
    let told = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    ObservedDeviceRecord {
        number: device.number,
        name: device.name.clone(),
        size_bytes: Some(device.size_bytes).filter(|bytes| *bytes > 0),
        serial: told(&device.serial),
        address: told(&device.address),
        io_scheduler: told(&device.io_scheduler),
        hardware_queues: Some(device.hardware_queues).filter(|count| *count > 0),
        completion_vcpu: device.completion_vcpu,
        disk: None,
        disk_missing: None,
    }
}

fn task_record(task: &ObservedTask) -> ObservedTaskRecord {
    ObservedTaskRecord {
        number: task.number,
        pid: task.pid,
        name: harmless(&task.name),
        title: Some(harmless(&task.title)).filter(|title| !title.is_empty()),
        title_before: None,
    }
}

fn others_record(of: &ObservedOthers) -> ObservedOthersRecord {
    ObservedOthersRecord {
        device: of.device,
        operation: of.operation,
        is_sync: of.is_sync,
        count: of.count,
        bytes: of.bytes,
        // What is observed is stamped with CLOCK_MONOTONIC_RAW, whose ticks are nanoseconds.
        total_ns: of.total_ticks,
    }
}

fn under_way_record(row: &ObservedUnderWay, end: GuestTicks) -> UnderWayRecord {
    UnderWayRecord {
        device: row.device,
        operation: row.operation,
        is_sync: row.is_sync,
        count: row.count,
        sector: row.sector,
        bytes: row.bytes,
        task: row.task,
        // As above.
        age_ns: end.0.saturating_sub(row.queued.0),
        issue: IssueRecord::of(row.issue, row.queued),
    }
}

#[cfg(test)]
#[path = "observation_tests.rs"]
mod tests;

//! The VMs' I/O as the host alone saw it. This is evidence of a level of its own: no request of a guest is in it,
//! and when the guest took an I/O is a range.

use super::distribution::{Distribution, Precision};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vslice_core::host_view::{InactivityEvidence, NoEnd, NoInactivity, ViewedIo};
use vslice_core::timeline::Who;
use vslice_core::units::HostNs;
use vslice_spec::quantity::duration;
use vslice_trace::observation::operation_name;

/// The worst I/Os that are kept.
pub const WORST_MAX: usize = 10;

/// The least and the most of a range.
pub(super) fn range(least_ns: u64, most_ns: u64) -> String {
    if least_ns == most_ns {
        return duration(least_ns);
    }
    format!("{} to {}", duration(least_ns), duration(most_ns))
}

/// The host's I/O for the VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostIo {
    /// Every disk of every VM, in the manifest's order; then what is for none of a VM's disks as far as is known.
    pub disks: Vec<HostIoDisk>,
    /// Those with the most I/O inactivity, the most first; at most [`WORST_MAX`].
    pub worst: Vec<WorstHostIo>,
}

/// The host's I/O for one disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIoDisk {
    /// The VM.
    pub vm: String,
    /// The disk, as `vslice ps` says it; `None` for I/O of the VM's process of which it is not known for which of its
    /// disks it is, if for any.
    pub disk: Option<String>,
    /// The host's disk.
    pub device: Option<String>,
    /// Whether the VMM goes past the host's page cache; what goes through it reaches the disk at other times.
    pub is_direct: Option<bool>,
    /// Why no I/O was recorded, as a sentence without its full stop.
    pub reason: Option<String>,
    /// Why no interrupt under KVM tells which vCPU took its I/O, as a sentence without its full stop; `None` if
    /// interrupts were recorded, and of a VM that KVM does not run.
    #[serde(default)]
    pub interrupts_missing: Option<String>,
    /// Its I/O by operation.
    pub operations: Vec<HostIoOperation>,
}

/// The I/O of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostIoOperation {
    /// `read`, `write`, `flush`, `discard`, `other`; or `unknown`, in runs that did not record it.
    pub operation: String,
    /// How many I/Os were handed to the host.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were seen to end; the latencies are theirs.
    pub ended: u64,
    /// The others, by reason.
    pub no_end_by: BTreeMap<String, u64>,
    /// The host's latency, from handed to the host to done, in nanoseconds: the median.
    pub p50_ns: Option<u64>,
    /// The 99th percentile.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
    /// Of how many the I/O inactivity is known as a range.
    pub known: u64,
    /// Of how many of those KVM's interrupt told which vCPU took it, and when it was told: least and most are one. Of the
    /// others by what all vCPUs did.
    #[serde(default)]
    pub by_interrupt: u64,
    /// The others, by reason.
    pub unknown_by: BTreeMap<String, u64>,
    /// Least I/O inactivity of those, summed.
    pub least_ns: u64,
    /// Most I/O inactivity of those, summed.
    pub most_ns: u64,
    /// How many of those have I/O inactivity for certain.
    pub inactive_least: u64,
    /// How many of those may have any.
    pub inactive_most: u64,
    /// The 99th percentile of the least.
    pub least_p99_ns: Option<u64>,
    /// The 99th percentile of the most.
    pub most_p99_ns: Option<u64>,
}

/// An I/O that waited long for a vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstHostIo {
    /// The VM.
    pub vm: String,
    /// Its disk, if that is known.
    pub disk: Option<String>,
    /// See [`HostIoOperation::operation`].
    pub operation: String,
    /// Since the start of the window, in nanoseconds.
    pub submitted_ns: u64,
    /// Its bytes.
    pub bytes: u64,
    /// From handed to the host to done.
    pub latency_ns: u64,
    /// Least I/O inactivity.
    pub least_ns: u64,
    /// Most I/O inactivity.
    pub most_ns: u64,
    /// The vCPU with the most.
    pub vcpu: Option<u16>,
    /// Who had that one's pCPU longest, if it waited for it and that is known.
    pub who: Option<String>,
}

/// Why the end of an I/O is not known, in `summary.json`.
#[must_use]
pub fn no_end_name(why: NoEnd) -> &'static str {
    match why {
        NoEnd::Lost => "lost",
        NoEnd::Ambiguous => "ambiguous",
        NoEnd::Unfinished => "unfinished",
        NoEnd::NoSectors => "no_sectors",
    }
}

/// Why its inactivity is not known.
#[must_use]
pub fn unknown_name(why: NoInactivity) -> &'static str {
    match why {
        NoInactivity::NoEnd => "no_end",
        NoInactivity::VcpuUnknown => "vcpu_unknown",
        NoInactivity::NeverQuiet => "never_quiet",
        NoInactivity::NotTraced => "not_traced",
        NoInactivity::NobodyTold => "nobody_told",
    }
}

fn operation(io: &ViewedIo) -> &'static str {
    io.event.operation.map_or("unknown", operation_name)
}

/// What identifies a VM's disk: the VM's place and the disk's among its own.
type DiskPlace = (usize, Option<usize>);

/// Adds them up, in memory that depends on the number of disks.
#[derive(Debug, Default)]
pub struct HostIoTally {
    start: HostNs,
    rows: BTreeMap<(DiskPlace, &'static str), Row>,
    worst: Vec<Worst>,
}

#[derive(Debug, Clone)]
struct Worst {
    place: DiskPlace,
    io: ViewedIo,
    least_ns: u64,
    most_ns: u64,
}

#[derive(Debug)]
struct Row {
    count: u64,
    bytes: u64,
    latency: Distribution,
    no_end_by: BTreeMap<String, u64>,
    least: Distribution,
    most: Distribution,
    sums_ns: [u64; 2],
    inactive: [u64; 2],
    by_interrupt: u64,
    unknown_by: BTreeMap<String, u64>,
}

impl HostIoTally {
    /// Of a window that starts then.
    #[must_use]
    pub fn new(start: HostNs) -> HostIoTally {
        HostIoTally { start, ..HostIoTally::default() }
    }

    /// Takes an I/O of the VM at this place, for its disk at that place.
    pub fn push(&mut self, vm: usize, disk: Option<usize>, io: &ViewedIo) {
        let place = (vm, disk);
        let row = self.rows.entry((place, operation(io))).or_insert_with(Row::new);
        row.push(io);
        let Ok(inactivity) = &io.inactivity else { return };
        let (least_ns, most_ns) = (inactivity.least_ns, inactivity.most_ns);
        if most_ns == 0 {
            return;
        }
        let key = |least_ns: u64, most_ns: u64| Reverse((least_ns, most_ns));
        let at = self
            .worst
            .partition_point(|worst| key(worst.least_ns, worst.most_ns) <= key(least_ns, most_ns));
        if at < WORST_MAX {
            self.worst.insert(at, Worst { place, io: io.clone(), least_ns, most_ns });
            self.worst.truncate(WORST_MAX);
        }
    }

    /// All of it. `disks` are the VMs' with their places; `name` says who somebody is.
    #[must_use]
    pub fn finish(
        mut self,
        disks: Vec<(DiskPlace, HostIoDisk)>,
        vm_name: impl Fn(usize) -> String,
        name: impl Fn(&Who) -> String,
    ) -> HostIo {
        let mut all: BTreeMap<DiskPlace, HostIoDisk> = disks.into_iter().collect();
        for ((place, operation), row) in std::mem::take(&mut self.rows) {
            let disk = all.entry(place).or_insert_with(|| HostIoDisk::elsewhere(vm_name(place.0)));
            disk.operations.push(row.finish(operation));
        }
        let disk_of = |place: DiskPlace| all.get(&place).and_then(|disk| disk.disk.clone());
        let worst = self.worst.iter().map(|Worst { place, io, least_ns, most_ns }| {
            let waited = io.inactivity.as_ref().ok().and_then(|known| known.waited.as_ref());
            WorstHostIo {
                vm: vm_name(place.0),
                disk: disk_of(*place),
                operation: operation(io).to_owned(),
                submitted_ns: io.submitted.since_ns(self.start),
                bytes: bytes(io),
                latency_ns: io.latency_ns().unwrap_or(0),
                least_ns: *least_ns,
                most_ns: *most_ns,
                vcpu: waited.map(|(vcpu, _)| vcpu.0),
                who: waited.and_then(|(_, who)| who.as_ref()).map(&name),
            }
        });
        let worst = worst.collect();
        // What is for no disk that is known comes behind the disks of its VM.
        let mut all: Vec<(DiskPlace, HostIoDisk)> = all.into_iter().collect();
        all.sort_by_key(|((vm, disk), _)| (*vm, disk.is_none(), *disk));
        HostIo { disks: all.into_iter().map(|(_, disk)| disk).collect(), worst }
    }
}

impl HostIoDisk {
    /// For I/O of this VM's process that is for none of its disks, as far as is known.
    fn elsewhere(vm: String) -> HostIoDisk {
        HostIoDisk {
            vm,
            disk: None,
            device: None,
            is_direct: None,
            reason: None,
            interrupts_missing: None,
            operations: Vec::new(),
        }
    }
}

fn bytes(io: &ViewedIo) -> u64 {
    u64::from(io.event.sectors) * 512
}

impl Row {
    fn new() -> Row {
        Row {
            count: 0,
            bytes: 0,
            latency: Distribution::new(Precision::Coarse),
            no_end_by: BTreeMap::new(),
            least: Distribution::new(Precision::Coarse),
            most: Distribution::new(Precision::Coarse),
            sums_ns: [0; 2],
            inactive: [0; 2],
            by_interrupt: 0,
            unknown_by: BTreeMap::new(),
        }
    }

    fn push(&mut self, io: &ViewedIo) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes(io));
        match io.done {
            Ok(done) => self.latency.record(done.since_ns(io.submitted)),
            Err(why) => *self.no_end_by.entry(no_end_name(why).to_owned()).or_default() += 1,
        }
        match &io.inactivity {
            Ok(known) => {
                let is_certain = known.evidence == InactivityEvidence::Interrupt;
                self.by_interrupt += u64::from(is_certain);
                self.least.record(known.least_ns);
                self.most.record(known.most_ns);
                for (place, ns) in [known.least_ns, known.most_ns].into_iter().enumerate() {
                    self.sums_ns[place] = self.sums_ns[place].saturating_add(ns);
                    self.inactive[place] += u64::from(ns > 0);
                }
            }
            Err(why) => *self.unknown_by.entry(unknown_name(*why).to_owned()).or_default() += 1,
        }
    }

    fn finish(self, operation: &str) -> HostIoOperation {
        let quantile = |of: &Distribution, quantile| of.quantile_ns(quantile);
        HostIoOperation {
            operation: operation.to_owned(),
            count: self.count,
            bytes: self.bytes,
            ended: self.latency.count(),
            no_end_by: self.no_end_by,
            p50_ns: quantile(&self.latency, 0.5),
            p99_ns: quantile(&self.latency, 0.99),
            max_ns: self.latency.max_ns(),
            known: self.least.count(),
            by_interrupt: self.by_interrupt,
            unknown_by: self.unknown_by,
            least_ns: self.sums_ns[0],
            most_ns: self.sums_ns[1],
            inactive_least: self.inactive[0],
            inactive_most: self.inactive[1],
            least_p99_ns: quantile(&self.least, 0.99),
            most_p99_ns: quantile(&self.most, 0.99),
        }
    }
}

impl HostIo {
    /// How many I/Os were seen for the VMs' disks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.of_disks().map(|row| row.count).sum()
    }

    /// The operations of disks that are known.
    pub fn of_disks(&self) -> impl Iterator<Item = &HostIoOperation> {
        self.disks.iter().filter(|disk| disk.disk.is_some()).flat_map(|disk| &disk.operations)
    }
}

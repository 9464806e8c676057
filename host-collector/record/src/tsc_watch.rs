//! The TSCs of guests under KVM, as KVM relates them to the host's: read before, during and after
//! the measured window. Nothing of it is needed for a run: what cannot be found becomes the reason
//! why, and the clock maps rest on exchanges with the guests alone.

use std::thread;
use std::time::{Duration, Instant};
use vslice_core::clock::tsc::{TscRelation, TscSample};
use vslice_core::units::{Tid, VcpuId};
use vslice_host::tsc::{self, KvmDebugfs};
use vslice_trace::manifest::may_use_kvm;
use vslice_trace::manifest::{Manifest, TscReading, TscRecord, VcpuTsc, VmRecord};

/// Between two looks. A look reads a few small files, each in some microseconds and without a lock.
const INTERVAL: Duration = Duration::from_secs(1);

/// So long before a sample KVM must have said the same.
pub(crate) const STEADY_TIME: Duration = Duration::from_millis(1);

/// Samples of the host's TSC at most: an hour of them, and then every other one is let go.
pub(crate) const SAMPLES_MAX: usize = 3600;

/// Readings kept of one vCPU: of a TSC that is written to more often, the first ones tell enough.
pub(crate) const READINGS_MAX: usize = 1000;

/// Whom it watches, and what it has seen.
#[derive(Debug)]
pub(crate) struct TscWatch {
    /// `None` where nothing can be seen of any VM.
    debugfs: Option<KvmDebugfs>,
    vms: Vec<(Tid, TscRecord)>,
    samples: Vec<TscSample>,
    looked_at: Instant,
}

impl TscWatch {
    /// Looks for the first time.
    pub(crate) fn start(vms: &[VmRecord]) -> TscWatch {
        let debugfs = if may_use_kvm(vms) {
            KvmDebugfs::find()
                .map_err(|error| format!("KVM's debugfs directory cannot be read ({error})"))
        } else {
            Err(String::from("only KVM reports a guest's TSC offset"))
        };
        let record = |vm: &VmRecord| {
            let missing = debugfs.as_ref().err().cloned();
            (vm.pid, TscRecord { missing, ..TscRecord::default() })
        };
        let vms = vms.iter().map(record).collect();
        let (samples, looked_at) = (Vec::new(), Instant::now());
        let mut watch = TscWatch { debugfs: debugfs.ok(), vms, samples, looked_at };
        watch.look();
        watch
    }

    /// Looks again, if it is time to.
    pub(crate) fn turn(&mut self) {
        if self.looked_at.elapsed() >= INTERVAL {
            self.look();
        }
    }

    /// What KVM says of a vCPU holds for the sample if it says the same some time before it and after
    /// it: on hosts whose TSC is not stable, KVM writes a passing offset each time that it takes up a
    /// vCPU, and the one that lasts on the way into the guest (`kvm_arch_vcpu_load`,
    /// `kvm_guest_time_update`).
    fn look(&mut self) {
        self.looked_at = Instant::now();
        let Some(debugfs) = &self.debugfs else { return };
        let read =
            || self.vms.iter().map(|(vmm, _)| debugfs.relations_of(*vmm)).collect::<Vec<_>>();
        let before = read();
        thread::sleep(STEADY_TIME);
        let Some(sample) = tsc::sample() else { return };
        let after = read();
        let previous = self.samples.last().copied();
        for ((_, record), looks) in self.vms.iter_mut().zip(before.into_iter().zip(after)) {
            match looks {
                (Ok(before), Ok(after)) => {
                    let same = before.iter().filter(|relation| after.contains(relation));
                    same.for_each(|(vcpu, relation)| {
                        note(record, *vcpu, *relation, &sample, previous.as_ref());
                    });
                }
                // What was read before stays true of its time.
                (Err(error), _) | (_, Err(error)) if record.vcpus.is_empty() => {
                    record.missing = Some(error.to_string());
                }
                _ => {}
            }
        }
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push(sample);
    }

    /// Looks for the last time.
    pub(crate) fn finish(mut self, manifest: &mut Manifest) {
        self.look();
        self.write(manifest);
    }

    /// Tells the manifest what has been seen so far.
    pub(crate) fn write(&self, manifest: &mut Manifest) {
        for (vm, (_, record)) in manifest.vms.iter_mut().zip(&self.vms) {
            vm.tsc.clone_from(record);
        }
        if self.vms.iter().any(|(_, record)| !record.vcpus.is_empty()) {
            manifest.host_tsc.clone_from(&self.samples);
        }
    }
}

/// A relation that is new is a reading of its own; one that held at the previous sample lasts until
/// now. One that held only before that is a new reading, so that the sample in between, of which KVM
/// said no one thing, is in none.
fn note(
    record: &mut TscRecord,
    vcpu: VcpuId,
    relation: TscRelation,
    sample: &TscSample,
    previous: Option<&TscSample>,
) {
    record.missing = None;
    let place = record.vcpus.iter().position(|known| known.vcpu == vcpu);
    let place = place.unwrap_or_else(|| {
        record.vcpus.push(VcpuTsc { vcpu, readings: Vec::new() });
        record.vcpus.len() - 1
    });
    let readings = &mut record.vcpus[place].readings;
    let has_room = readings.len() < READINGS_MAX;
    match readings.last_mut() {
        Some(last)
            if last.relation == relation
                && previous.is_some_and(|previous| previous.after == last.until) =>
        {
            last.until = sample.after;
        }
        _ if has_room => {
            readings.push(TscReading { from: sample.before, until: sample.after, relation });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::HostNs;

    fn relation(offset_ticks: i64) -> TscRelation {
        TscRelation { offset_ticks, scaling: None }
    }

    #[test]
    fn a_relation_lasts_until_another_is_read() {
        let mut record = TscRecord { missing: Some(String::from("x")), ..TscRecord::default() };
        let at = |ns| TscSample { before: HostNs(ns), tsc: ns, after: HostNs(ns + 1) };
        for (time_ns, previous_ns, offset) in [(10, 5, -5), (20, 10, -5), (30, 20, 7)] {
            note(&mut record, VcpuId(1), relation(offset), &at(time_ns), Some(&at(previous_ns)));
        }
        // At 40 it was not the same before and after.
        note(&mut record, VcpuId(1), relation(7), &at(50), Some(&at(40)));
        note(&mut record, VcpuId(0), relation(-5), &at(30), None);
        assert_eq!(record.missing, None);
        let [one, zero] = &record.vcpus[..] else { panic!("{record:?}") };
        assert_eq!((one.vcpu, zero.vcpu), (VcpuId(1), VcpuId(0)));
        let reading = |from, until, offset| TscReading {
            from: HostNs(from),
            until: HostNs(until),
            relation: relation(offset),
        };
        assert_eq!(one.readings, [reading(10, 21, -5), reading(30, 31, 7), reading(50, 51, 7)]);
        assert_eq!(zero.readings, [reading(30, 31, -5)]);
    }

    #[test]
    fn a_guest_without_kvm_has_a_reason() {
        let watch = TscWatch::start(&[]);
        assert!(watch.debugfs.is_none() && watch.samples.is_empty());
    }
}

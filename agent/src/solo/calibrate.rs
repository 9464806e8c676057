//! How fine the loop is on this machine, and what its counters cost.

use super::counters::ThreadWitness;
use super::measure::{rate_of, vcpus_of};
use super::model::{Calibration, VcpuCalibration};
use super::options::Solo;
use anyhow::{Context, anyhow};
use std::thread;
use vslice_workload::clock::Clock;
use vslice_workload::gap::{Figures, TickRate, Witness};
use vslice_workload::pin::pin_current_thread;

const ITERATIONS: usize = 1_000_000;
const COUNTER_READS: usize = 5_000;

/// Measures every vCPU, one after the other.
pub(super) fn calibrate(solo: &Solo) -> anyhow::Result<Calibration> {
    let rate = rate_of(solo.clock)?;
    let clock = solo.clock;
    let one = |vcpu| {
        let thread = thread::Builder::new().name(format!("gap-{vcpu}"));
        let thread = thread.spawn(move || calibrate_vcpu(vcpu, clock, rate));
        let joined = thread.context("cannot start a thread")?.join();
        joined.map_err(|_| anyhow!("the loop of vCPU{vcpu} has died"))?
    };
    let vcpus = vcpus_of(solo)?.into_iter().map(one).collect::<anyhow::Result<_>>()?;
    Ok(Calibration::new(clock, rate, vcpus))
}

fn calibrate_vcpu(vcpu: u16, clock: Clock, rate: TickRate) -> anyhow::Result<VcpuCalibration> {
    pin_current_thread(vcpu)?;
    let mut steps = vec![0; ITERATIONS];
    let mut last = clock.now();
    for step in &mut steps {
        let now = clock.now();
        *step = now.saturating_sub(last);
        last = now;
    }
    let mut witness = ThreadWitness::new();
    let mut reads = vec![0; COUNTER_READS];
    for read in &mut reads {
        let before = clock.now();
        witness.read(clock);
        *read = clock.now().saturating_sub(before);
    }
    let steps = Figures::of(steps.into_iter().map(|ticks| rate.ns(ticks)));
    let reads = Figures::of(reads.into_iter().map(|ticks| rate.ns(ticks)));
    Ok(VcpuCalibration::new(vcpu, &steps, &reads))
}

//! Guests whose agent observes their kernel's block requests: which kernels it can, and what it says where
//! it cannot. The test itself is the collector, at the other end of a virtio-serial port.

mod guest;
mod midway;

use crate::Case;
use guest::{Guest, Told, reads};
use libtest_mimic::Failed;
use vslice_spec::WorkloadSpec;
use vslice_tests::Lab;
use vslice_wire::{BlockOperation, CompletionVcpu, DoneReason, ObservedFlags, ObservedRequest};

pub(crate) const CASES: &[Case] = &[
    ("an_observing_agent_tells_of_every_read_of_its_reader", tells_of_every_read),
    ("an_observing_agent_counts_what_is_fast", counts_what_is_fast),
    ("a_kernel_in_lockdown_is_not_observed_and_that_is_said", lockdown),
    ("root_observes_with_lockdown_integrity_and_perf_event_paranoid_4", refused_to_users),
    ("an_observed_guest_on_the_hpet_says_what_its_clock_costs", slow_clock),
    ("an_observed_guest_that_dies_midway_leaves_a_partial_report", midway::dies),
    ("an_observed_guest_that_is_stopped_midway_goes_on", midway::stops),
];

/// The same for the guests of another kernel.
pub(crate) const NEWER_CASES: &[Case] = &[("a_newer_kernel_is_observed", tells_of_every_read)];

/// And of an older one.
pub(crate) const OLDER_CASES: &[Case] = &[("an_older_kernel_is_observed", tells_of_every_read)];

/// Reads of the reader.
const READS: u64 = 256;

/// So the kernel's own stamps are no exits (see docs/labs.md).
const ON_THE_TSC: &str = "tsc=reliable clocksource=tsc";

fn check(condition: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// What a guest on such a command line tells of its reader's requests, and what is observed of them.
fn told(lab: &Lab, append: &str, change: impl FnOnce(&mut WorkloadSpec)) -> Result<Told, Failed> {
    let mut guest = Guest::boot(lab.image(), append)?;
    let mut spec = reads(READS);
    change(&mut spec);
    guest.plan(&spec)?;
    guest.start()?;
    let told = guest.listen_to_done()?;
    let done = told.done.ok_or("not done")?;
    check(done.reason == DoneReason::Completed && done.requests == READS, || format!("{done:?}"))?;
    Ok(told)
}

/// Each read of the reader is one observed request, and its stamps lie within the reader's own.
fn every_read_is_observed(told: &Told) -> Result<(), Failed> {
    let disk = told.devices.iter().find(|device| device.name == "vda");
    let disk = disk.ok_or_else(|| format!("no vda in {:?}", told.devices))?;
    check(disk.size_bytes == guest::DISK_BYTES && disk.address.contains(':'), || {
        format!("{disk:?}")
    })?;
    // Its vCPUs share one queue, but `-smp 2` is one socket with one last-level cache.
    check(disk.completion_vcpu == CompletionVcpu::Interrupted, || format!("{disk:?}"))?;
    check(told.lost.is_empty(), || format!("lost {:?}", told.lost))?;
    for read in &told.requests {
        let place = read.index % (guest::DISK_BYTES / 4096) * 8;
        let is_it = |request: &&ObservedRequest| {
            request.device == disk.number
                && request.operation == BlockOperation::Read
                && request.sector == place
                && read.submitted <= request.queued
                && request.completed <= read.completed
        };
        let found: Vec<_> = told.observed.iter().filter(is_it).collect();
        let [one] = found[..] else {
            let near = told.observed.iter().filter(|request| request.sector == place);
            let near: Vec<_> = near.collect();
            return Err(format!("{read:?} is observed as {found:?} of {near:?}").into());
        };
        let is_right = one.queued <= one.issued
            && one.issued <= one.completed
            && (one.bytes, one.result) == (4096, 0)
            && one.vcpu_queued == read.vcpu_submitted
            && !one.flags.contains(ObservedFlags::NO_QUEUE_TIME)
            && !one.flags.contains(ObservedFlags::AMBIGUOUS);
        check(is_right, || format!("{read:?} is observed as {one:?}"))?;
        let task = told.tasks.iter().find(|task| task.number == one.task);
        check(task.is_some_and(|task| task.name == "reader"), || format!("{one:?} by {task:?}"))?;
    }
    Ok(())
}

fn tells_of_every_read(lab: &Lab) -> Result<(), Failed> {
    let told = told(lab, ON_THE_TSC, |_| {})?;
    check(told.notices.is_empty(), || format!("{:?}", told.notices))?;
    every_read_is_observed(&told)?;
    let cost = told.cost.ok_or("no cost was told")?;
    check(cost.events_count >= 3 * READS && cost.lost_count == 0, || format!("{cost:?}"))
}

/// What keeps users from tracing does not keep root from it.
fn refused_to_users(lab: &Lab) -> Result<(), Failed> {
    const WORDS: &str = "lockdown=integrity sysctl.kernel.perf_event_paranoid=4";
    let told = told(lab, &format!("{ON_THE_TSC} {WORDS}"), |_| {})?;
    every_read_is_observed(&told)
}

fn counts_what_is_fast(lab: &Lab) -> Result<(), Failed> {
    const SECONDS: u64 = 1_000_000;
    let slow = |spec: &mut WorkloadSpec| {
        spec.observe.iter_mut().for_each(|observe| observe.slower_than_us = 60 * SECONDS);
    };
    let told = told(lab, ON_THE_TSC, slow)?;
    check(told.observed.is_empty(), || format!("{:?}", told.observed))?;
    let reads = told.others.iter().filter(|others| others.operation == BlockOperation::Read);
    let (count, bytes) =
        reads.fold((0, 0), |(count, bytes), others| (count + others.count, bytes + others.bytes));
    check(count >= READS && bytes >= READS * 4096, || format!("{:?}", told.others))
}

/// Nothing of the kernel's own may be read there; the reader's requests are told all the same.
fn lockdown(lab: &Lab) -> Result<(), Failed> {
    let told = told(lab, &format!("{ON_THE_TSC} lockdown=confidentiality"), |_| {})?;
    check(told.observed.is_empty() && told.devices.is_empty(), || format!("{:?}", told.observed))?;
    let says = |word: &str| told.notices.iter().any(|notice| notice.text.contains(word));
    check(says("lockdown") && says("observed"), || format!("{:?}", told.notices))
}

fn slow_clock(lab: &Lab) -> Result<(), Failed> {
    let told = told(lab, "clocksource=hpet", |_| {})?;
    every_read_is_observed(&told)?;
    check(told.notices.iter().any(|notice| notice.text.contains("hpet")), || {
        format!("{:?}", told.notices)
    })
}

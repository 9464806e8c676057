//! What a run itself has to warn of, before anything is made of its numbers.

use crate::analyse::chosen::Chosen;
use crate::analyse::observer::{Run, RunEnd};
use crate::summary::evidence::ScheduledVcpu;
use crate::summary::{VmIndex, Warning};
use vslice_trace::manifest::{Cost, Manifest, NO_EXITS_UNDER_TCG, VmRecord};
use vslice_trace::quota::Throttling;
use vslice_trace::vmm::Accelerator;

/// What there is to say of a run. What is told of a stretch of it says that this is of all of the run.
pub(super) fn of_run(run: &Run<'_>, end: &RunEnd<'_>, has_exits: bool) -> Vec<Warning> {
    let mut warnings = of_manifest(run.manifest, run.chosen);
    warnings.extend_from_slice(end.warnings);
    warnings.extend(contradicted(end.contradictions_count, end.events_count));
    warnings.extend(no_exits(run.manifest, has_exits));
    if run.chosen.is_stretch() {
        warnings.iter_mut().for_each(|warning| {
            *warning = Warning::Notice { text: format!("of the whole run: {warning}") };
        });
    }
    warnings
}

/// What the manifest alone has to say.
fn of_manifest(manifest: &Manifest, chosen: &Chosen) -> Vec<Warning> {
    let vms = manifest.vms.iter().enumerate().filter(|(vm, _)| chosen.has_vm(VmIndex(*vm)));
    let vms = vms.map(|(_, vm)| vm);
    let of_recording = uncovered(manifest).into_iter().chain(stacks_refused(manifest));
    let of_host = stolen(manifest).into_iter().chain(no_window(manifest));
    of_recording
        .chain(left_out(&manifest.cost))
        .chain(vms.filter_map(|vm| throttled(manifest, vm)))
        .chain(of_host)
        .collect()
}

/// What the censuses had no room for.
fn left_out(cost: &Cost) -> Vec<Warning> {
    let threads = cost.threads_left_out_count;
    let threads = (threads > 0).then(|| {
        format!(
            "this host had {threads} more threads than vslice keeps: as antagonists they are of an unknown kind"
        )
    });
    let commands = cost.commands_left_out_count;
    let commands = (commands > 0).then(|| {
        format!("the command lines of {commands} processes were not kept: there were too many")
    });
    let texts = threads.into_iter().chain(commands);
    texts.map(|text| Warning::Notice { text }).collect()
}

/// Why there are no exits, where the plan asks for them and there are none.
fn no_exits(manifest: &Manifest, has_exits: bool) -> Option<Warning> {
    if has_exits || !manifest.asked_for_exits() {
        return None;
    }
    let mut known = (0..manifest.vms.len()).map(|place| manifest.accelerator_of(place));
    let is_tcg = |accelerator| accelerator == Some(Accelerator::Tcg);
    let text = match !manifest.vms.is_empty() && known.all(is_tcg) {
        true => NO_EXITS_UNDER_TCG,
        false => {
            "exits were asked for, but none was recorded: KVM on this host has not traced any (its tracefs \
             has no kvm_exit and kvm_entry, or its backend does not use them)"
        }
    };
    Some(Warning::Notice { text: text.to_owned() })
}

/// Above this share of the host's pCPUs' time, what a hypervisor below it kept is warned of.
const STOLEN_SHARE_MAX: f64 = 0.01;

/// That the host is a guest itself, whose hypervisor kept some of the time that was measured, or does not
/// say so: it is in every number, and in none of the reasons.
fn stolen(manifest: &Manifest) -> Option<Warning> {
    let window = manifest.window?;
    let host = manifest.environment.as_ref()?;
    let conditions = host.conditions.as_ref();
    let pcpus_count = host.pcpus_online.as_ref()?.count();
    let measured_ns = window.end_ns?.since_ns(window.start_ns) as f64 * pcpus_count as f64;
    let stolen_ns = manifest.stolen_ns.filter(|_| measured_ns > 0.0);
    let share = stolen_ns.map(|stolen_ns| stolen_ns as f64 / measured_ns);
    // It may have begun to say so in this very window.
    let is_told = conditions.is_some_and(|conditions| conditions.is_steal_told)
        || manifest.stolen_ns.is_some_and(|ns| ns > 0);
    let hypervisor = conditions.and_then(|conditions| conditions.hypervisor.as_ref());
    if let Some(hypervisor) = hypervisor.filter(|_| !is_told) {
        return Some(Warning::Notice {
            text: format!(
                "this host is a virtual machine itself ({hypervisor}), and its hypervisor has never \
                 reported any steal time: if the hypervisor's own CPUs are overcommitted, the times here \
                 mean nothing"
            ),
        });
    }
    let share = share?;
    (share > STOLEN_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "this host is a virtual machine itself, and its hypervisor stole {:.1} % of its pCPUs' time: \
             all latencies include that, and no reason shows it",
            share * 100.0
        ),
    })
}

/// Above this share of a vCPU's time in the window, what its VM's quotas kept off is warned of.
const THROTTLED_SHARE_MAX: f64 = 0.01;

/// What the quotas of a VM's vCPU threads did, if they were used up for long enough to be felt.
fn throttled(manifest: &Manifest, vm: &VmRecord) -> Option<Warning> {
    let groups = vm.groups.iter().filter_map(|group| Some((group, group.throttled()?)));
    let groups: Vec<_> = groups.collect();
    let (most, _) = groups.iter().max_by_key(|(_, throttled)| throttled.throttled_count)?;
    let sum = |of: fn(&Throttling) -> u64| -> u64 {
        groups.iter().fold(0, |sum, (_, throttled)| sum.saturating_add(of(throttled)))
    };
    let throttled_ns = sum(|throttled| throttled.throttled_ns);
    let window_ns =
        manifest.window.and_then(|window| Some(window.end_ns?.since_ns(window.start_ns)));
    // All of it may be of one vCPU. Of a window that has no end it is not known how much it is.
    let felt_ns = |window_ns: u64| THROTTLED_SHARE_MAX * window_ns as f64;
    if window_ns.is_some_and(|window_ns| throttled_ns as f64 <= felt_ns(window_ns)) {
        return None;
    }
    let ns = |us: u64| us.saturating_mul(1000);
    Some(Warning::Throttled {
        vm: vm.name.clone(),
        count: sum(|throttled| throttled.throttled_count),
        throttled_ns,
        group: most.path.clone(),
        quota_ns: most.quota.map(|quota| ns(quota.quota_us)),
        period_ns: most.quota.map(|quota| ns(quota.period_us)),
    })
}

/// Above this share of the VMs' threads, those that could not be watched are warned of.
const UNCOVERED_SHARE_MAX: f64 = 0.1;

/// That many of the VMs' threads were not watched. vCPUs are not among them: they are there from the start.
fn uncovered(manifest: &Manifest) -> Option<Warning> {
    let count = manifest.cost.uncovered_threads_count;
    let known = manifest.vms.iter().map(|vm| vm.threads.len() as u64);
    let all = known.fold(count, u64::saturating_add);
    (count as f64 > UNCOVERED_SHARE_MAX * all as f64).then(|| Warning::Notice {
        text: format!(
            "{count} of {all} threads of the VMs started during the run and could not be watched on every \
             pCPU: locks that they held and vCPUs that they woke may be missing"
        ),
    })
}

/// Above this share of the recorded events, switches whose stack was not kept are warned of.
const REFUSED_SHARE_MAX: f64 = 0.01;

/// That many sleeps have no reason, as there was no room for their stacks.
fn stacks_refused(manifest: &Manifest) -> Option<Warning> {
    let cost = &manifest.cost;
    let share = cost.stacks_refused_count as f64 / cost.events_count.max(1) as f64;
    (share > REFUSED_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "{} switches, {:.1} % of the recorded events, had too many different kernel stacks to keep: \
             why those threads left their pCPU is unknown, and that time has no reason",
            cost.stacks_refused_count,
            share.min(1.0) * 100.0
        ),
    })
}

/// Above this share of the events of the window, those that contradict others are warned of.
const CONTRADICTED_SHARE_MAX: f64 = 0.001;

/// That many scheduler events of the window contradict the ones before them.
fn contradicted(count: u64, events_count: u64) -> Option<Warning> {
    let share = count as f64 / events_count.max(1) as f64;
    (share > CONTRADICTED_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "{count} scheduler events, {:.1} % of them, contradict the ones before them: the time between \
             is unknown, and requests that overlap it are not attributed to causes",
            share.min(1.0) * 100.0
        ),
    })
}

/// A window that has no length, or a negative one: then nothing was measured over it.
fn no_window(manifest: &Manifest) -> Option<Warning> {
    let window = manifest.window?;
    let end_ns = window.end_ns.filter(|end_ns| *end_ns <= window.start_ns)?;
    let text = format!(
        "by its own recording the measured window ended {} ns before it began: its rates and shares are \
         unknown",
        window.start_ns.since_ns(end_ns)
    );
    Some(Warning::Notice { text })
}

/// What the kernel counted of a thread while it was observed, if that is more than can be: a warning.
/// Each of the two readings may be as old as a tick.
pub(super) fn counted_too_much(vm: &str, row: &ScheduledVcpu) -> Option<Warning> {
    let counted_ns = row.on_pcpu_ns.saturating_add(row.run_delay_ns);
    let excess_ns = counted_ns.saturating_sub(row.observed_ns);
    (excess_ns > COUNTED_LATE_MAX_NS.max(row.observed_ns / 100)).then(|| {
        let text = format!(
            "the kernel counted {counted_ns} ns of {vm} {} on a pCPU or waiting for one within {} ns: its \
             totals contradict themselves and are not used",
            row.vcpu, row.observed_ns
        );
        Warning::Notice { text }
    })
}

/// Two ticks at 100 Hz.
const COUNTED_LATE_MAX_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn::manifest;
    use vslice_core::units::{Tid, VcpuId};
    use vslice_trace::host::HostFacts;

    fn host(json: serde_json::Value) -> Option<HostFacts> {
        Some(serde_json::from_value(json).expect("facts of a host"))
    }

    #[test]
    fn time_that_a_hypervisor_stole_is_told_from_one_in_a_hundred_on() {
        let mut manifest = manifest();
        manifest.environment = host(serde_json::json!({ "pcpus_online": "0-1" }));
        assert_eq!(stolen(&manifest), None, "the kernel does not say");
        // The window has 1.1 ms, on two pCPUs.
        manifest.stolen_ns = Some(22_000);
        assert_eq!(stolen(&manifest), None);
        manifest.stolen_ns = Some(22_001);
        let warning = stolen(&manifest).expect("more than a hundredth").to_string();
        assert!(warning.contains("stole 1.0 % of its pCPUs' time"), "{warning}");
        manifest.stolen_ns = Some(220_000);
        let warning = stolen(&manifest).expect("a tenth").to_string();
        assert!(warning.contains("stole 10.0 % of its pCPUs' time"), "{warning}");
        let silent = serde_json::json!({ "hypervisor": "QEMU", "mitigations": {} });
        manifest.environment =
            host(serde_json::json!({ "pcpus_online": "0-1", "conditions": silent }));
        let warning = stolen(&manifest).expect("a tenth").to_string();
        assert!(warning.contains("stole 10.0 % of its pCPUs' time"), "{warning}");
        manifest.stolen_ns = Some(0);
        let warning = stolen(&manifest).expect("it may keep anything").to_string();
        assert!(
            warning
                .contains("a virtual machine itself (QEMU), and its hypervisor has never reported"),
            "{warning}"
        );
        manifest.window = None;
        assert_eq!(stolen(&manifest), None);
    }

    /// Each of two readings may be a tick late, and in a long time the two clocks go apart.
    #[test]
    fn a_kernel_that_counted_more_than_there_was_is_not_believed() {
        let told = |observed_ns, counted_ns: u64| {
            let (vm, vcpu, tid) = ("vm1".to_owned(), VcpuId(1), Tid(7));
            let run_delay_ns = 1_000;
            let on_pcpu_ns = counted_ns - run_delay_ns;
            let (timeslices, timeslice_mean_ns) = (0, None);
            counted_too_much(
                "vm1",
                &ScheduledVcpu {
                    vm,
                    vcpu,
                    tid,
                    observed_ns,
                    on_pcpu_ns,
                    run_delay_ns,
                    timeslices,
                    timeslice_mean_ns,
                },
            )
        };
        assert_eq!(told(1_000_000_000, 1_020_000_000), None, "two ticks");
        assert_eq!(told(10_000_000_000, 10_100_000_000), None, "1 %");
        for (observed_ns, counted_ns) in
            [(1_000_000_000, 1_020_000_001), (10_000_000_000, 10_100_000_001)]
        {
            let warning = told(observed_ns, counted_ns).expect("more than that").to_string();
            let said = format!("{counted_ns} ns of vm1 vCPU1 on a pCPU or waiting for one");
            assert!(warning.contains(&said), "{warning}");
        }
    }

    #[test]
    fn of_a_window_without_a_length_no_share_was_kept() {
        let mut manifest = manifest();
        manifest.environment = host(serde_json::json!({ "pcpus_online": "0-1" }));
        manifest.stolen_ns = Some(22_000);
        let window = manifest.window.as_mut().expect("drawn");
        window.end_ns = Some(window.start_ns);
        assert_eq!(stolen(&manifest), None);
    }

    /// The VMs have four threads that were there from the start.
    #[test]
    fn what_recording_could_not_keep_is_said_from_a_share_on() {
        let mut manifest = manifest();
        let thread = manifest.vms[0].threads[0].clone();
        manifest.vms[0].threads.extend(std::iter::repeat_n(thread, 5));
        manifest.cost.uncovered_threads_count = 1;
        assert_eq!(uncovered(&manifest), None, "1 of 10");
        manifest.cost.uncovered_threads_count = 2;
        let told = uncovered(&manifest).unwrap().to_string();
        assert!(told.contains("2 of 11 threads"), "{told}");

        manifest.cost.events_count = 1_000;
        manifest.cost.stacks_refused_count = 10;
        assert_eq!(stacks_refused(&manifest), None, "1 %");
        manifest.cost.stacks_refused_count = 11;
        let told = stacks_refused(&manifest).unwrap().to_string();
        assert!(told.starts_with("11 switches, 1.1 % of the recorded events"), "{told}");

        assert_eq!(contradicted(1, 1_000), None, "1 in 1,000");
        let told = contradicted(2, 1_000).unwrap().to_string();
        assert!(
            told.starts_with("2 scheduler events, 0.2 % of them, contradict the ones"),
            "{told}"
        );
        assert_eq!(contradicted(0, 0), None);
    }
}

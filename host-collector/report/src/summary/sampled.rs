//! What the reader of a run without recorded events should know before trusting it.

use super::evidence::{SampledShare, ScheduledVcpu};
use super::model::Summary;
use super::totals::share;
use super::warning::Warning;
use vslice_core::samples::Doing;
use vslice_core::samples::interval::wilson_95;
use vslice_trace::evidence::{BPF_PROGRAMS, DEVICE_ACCESS, DISK_PROGRAMS, EvidenceLevel, Missing};

/// Sampled shares that are off by more than this, and by more than chance, bring
/// [`Warning::SampleBias`].
const BIAS_MAX: f64 = 0.02;

/// Adds warnings for evidence that a run lacks, whatever its level.
pub(super) fn warn(summary: &Summary, warnings: &mut Vec<Warning>) {
    let evidence = &summary.facts.evidence;
    if evidence.level != EvidenceLevel::Recorded {
        let (level, reason) = (evidence.level, evidence.reason.clone());
        warnings.push(Warning::NotRecorded { level, reason });
    }
    warnings.extend(summary.facts.scheduled.iter().filter_map(|row| sample_bias(summary, row)));
    // What has one price is told once.
    let mut felt: Vec<(String, &str)> = Vec::new();
    for Missing { name, costs } in &evidence.missing {
        if !limits_the_answer(summary, name) {
            continue;
        }
        match felt.iter_mut().find(|(_, other)| other == costs) {
            Some((names, _)) => *names = format!("{names}, {name}"),
            None => felt.push((name.clone(), costs)),
        }
    }
    let warning =
        |(name, costs): (String, &str)| Warning::MissingEvidence { name, costs: costs.to_owned() };
    warnings.extend(felt.into_iter().map(warning));
}

/// Whether missing this evidence limits the answer. Without BPF programs recording costs more but tells the
/// same; if I/O completions were hidden for lack of them, [`Warning::UnknownPhases`] says so when it matters.
/// Which device a vCPU needed a lock for does not matter if no vCPU waited for one.
pub(super) fn limits_the_answer(summary: &Summary, name: &str) -> bool {
    let is_program = [BPF_PROGRAMS, DISK_PROGRAMS].contains(&name);
    !(is_program || DEVICE_ACCESS.contains(&name) && summary.lock_waits.is_empty())
}

/// The one share that is known in two ways: looks, and what the scheduler counted.
fn sample_bias(summary: &Summary, row: &ScheduledVcpu) -> Option<Warning> {
    let mut sampled = summary.facts.sampled.iter().flat_map(|sampled| &sampled.vcpus);
    let seen = sampled.find(|seen| seen.tid == row.tid && seen.looks > 0)?;
    let is_runnable = |share: &&SampledShare| share.what.0 == Doing::Runnable;
    let runnable = seen.shares.iter().find(is_runnable);
    let (sampled, low, high) = runnable.map_or_else(
        || (0.0, 0.0, wilson_95(0, seen.looks).1),
        |share| (share.share, share.low, share.high),
    );
    let counted = share(row.on_pcpu_ns.saturating_add(row.run_delay_ns), row.observed_ns);
    let is_outside = counted < low || counted > high;
    (is_outside && (counted - sampled).abs() > BIAS_MAX).then(|| Warning::SampleBias {
        vm: row.vm.clone(),
        vcpu: row.vcpu,
        sampled,
        counted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::example;
    use crate::summary::warn::warnings;
    use vslice_core::units::VcpuId;
    use vslice_trace::evidence::KERNEL_SYMBOLS;

    #[test]
    fn a_sampled_run_says_so_and_its_requests_are_no_losses() {
        let summary = example::sampled();
        let warnings = warnings(&summary);
        let is_missing = |warning: &Warning| matches!(warning, Warning::MissingEvidence { .. });
        assert!(matches!(&warnings[0], Warning::NotRecorded { level: EvidenceLevel::Sampled, .. }));
        assert!(is_missing(&warnings[1]));
        let is_loss = |warning: &Warning| matches!(warning, Warning::Unattributable { .. });
        assert!(summary.requests.unattributable > 0 && !warnings.iter().any(is_loss));
    }

    #[test]
    fn programs_that_are_missing_are_told_on_the_whole_page_and_are_no_warning() {
        let mut summary = example::summary();
        let missing = |name: &str| Missing { name: name.to_owned(), costs: "its price".to_owned() };
        summary.facts.evidence.missing =
            vec![missing(BPF_PROGRAMS), missing(DISK_PROGRAMS), missing("kvm/kvm_pio")];
        assert_eq!(told_missing(&summary), ["kvm/kvm_pio"]);
        let page = crate::summary::render_full(&summary, crate::summary::Style::PLAIN);
        assert!(page.contains("\n          without BPF programs: its price\n"), "{page}");
    }

    /// What of a summary's missing evidence is warned of.
    fn told_missing(summary: &Summary) -> Vec<String> {
        let names = warnings(summary).into_iter().filter_map(|warning| match warning {
            Warning::MissingEvidence { name, .. } => Some(name),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn what_has_one_price_is_warned_of_once_and_only_where_it_is_paid() {
        let mut summary = example::summary();
        let missing =
            |name: &str, costs: &str| Missing { name: name.to_owned(), costs: costs.to_owned() };
        let of_waits = DEVICE_ACCESS.map(|name| missing(name, "one price"));
        summary.facts.evidence.missing = of_waits.into_iter().collect();
        summary.facts.evidence.missing.push(missing(KERNEL_SYMBOLS, "another"));
        assert!(!summary.lock_waits.is_empty());
        let told = ["kvm/kvm_userspace_exit, kvm/kvm_pio, kvm/kvm_mmio", KERNEL_SYMBOLS];
        assert_eq!(told_missing(&summary), told);
        // No vCPU waited for a lock.
        summary.lock_waits.clear();
        assert_eq!(told_missing(&summary), [KERNEL_SYMBOLS]);
    }

    #[test]
    fn samples_that_contradict_the_totals_are_warned_of() {
        let biased = |on_pcpu_ns| {
            let mut summary = example::sampled();
            summary.facts.scheduled[0].on_pcpu_ns = on_pcpu_ns;
            let all = warnings(&summary).into_iter();
            all.filter(|warning| matches!(warning, Warning::SampleBias { .. })).collect::<Vec<_>>()
        };
        let warning = |counted| Warning::SampleBias {
            vm: "vm1".into(),
            vcpu: VcpuId(1),
            sampled: 0.7495,
            counted,
        };
        // 74.95 % of the looks showed it runnable, by chance 73 to 76.8 %; it waited for 25 % of its time.
        assert_eq!(biased(500_000_000), []);
        assert_eq!(biased(519_400_000), [], "76.94 %: chance is no reason, but it is nothing much");
        assert_eq!(biased(519_600_000), [warning(0.7696)]);
        assert_eq!(biased(479_600_000), [], "72.96 %");
        assert_eq!(biased(479_400_000), [warning(0.7294)]);
    }

    #[test]
    fn what_may_be_chance_is_no_bias() {
        let mut summary = example::sampled();
        summary.facts.scheduled[0].on_pcpu_ns = 530_000_000;
        let vcpu = &mut summary.facts.sampled.as_mut().unwrap().vcpus[0];
        vcpu.looks = 40;
        (vcpu.shares[0].low, vcpu.shares[0].high) = (0.59, 0.86);
        let is_bias = |warning: &Warning| matches!(warning, Warning::SampleBias { .. });
        assert!(!warnings(&summary).iter().any(is_bias));
    }
}

//! Exits, added up by vCPU and reason.

use super::model::{EXITS_MAX, ExitKind, Exits};
use super::names::{Directory, VmIndex};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vslice_core::timeline::{Exit, ExitReason, ExitTime};
use vslice_core::units::VcpuId;

/// Reasons of all vCPUs that are told apart at most; there are some 200 for each vCPU.
const KINDS_MAX: usize = 16_384;

/// What exits have in common that are added up; no reason stands for those beyond the limit.
type Kind = (VmIndex, VcpuId, ExitKind, Option<ExitReason>);

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    count: u64,
    max_ns: u64,
    time: ExitTime,
}

impl Total {
    fn add(&mut self, more: Total) {
        self.count = self.count.saturating_add(more.count);
        self.max_ns = self.max_ns.max(more.max_ns);
        self.time.add(more.time);
    }
}

/// The exits of all vCPUs.
#[derive(Debug, Default)]
pub(super) struct ExitTally {
    totals: BTreeMap<Kind, Total>,
}

impl ExitTally {
    pub(super) fn add(&mut self, vm: VmIndex, vcpu: VcpuId, exit: &Exit) {
        let kind = match exit.reason {
            ExitReason::Hardware(_) => ExitKind::Hardware,
            ExitReason::Userspace(_) => ExitKind::Userspace,
        };
        let mut key = (vm, vcpu, kind, Some(exit.reason));
        if self.totals.len() >= KINDS_MAX && !self.totals.contains_key(&key) {
            key.3 = None;
        }
        let max_ns = exit.time.total_ns();
        self.totals.entry(key).or_default().add(Total { count: 1, max_ns, time: exit.time });
    }

    /// The rows of the summary: by vCPU and kind, the longest total first.
    pub(super) fn rows(&self, directory: &Directory<'_>) -> Vec<Exits> {
        let totals: Vec<(&Kind, &Total)> = self.totals.iter().collect();
        let mut rows = Vec::new();
        for of_kind in totals.chunk_by(|left, right| group(left.0) == group(right.0)) {
            let mut of_kind = of_kind.to_vec();
            of_kind.sort_by_key(|(kind, total)| {
                (kind.3.is_none(), Reverse(total.time.total_ns()), kind.3)
            });
            let listed = of_kind.len().min(EXITS_MAX);
            let (shown, cut) = of_kind.split_at(listed);
            rows.extend(shown.iter().map(|(kind, total)| row(kind, total, directory)));
            let mut rest = Total::default();
            cut.iter().for_each(|(_, total)| rest.add(**total));
            if let Some((kind, _)) = cut.first() {
                let kind = (kind.0, kind.1, kind.2, None);
                rows.push(row(&kind, &rest, directory));
            }
        }
        rows
    }
}

fn group(kind: &Kind) -> (VmIndex, VcpuId, ExitKind) {
    (kind.0, kind.1, kind.2)
}

fn row((vm, vcpu, kind, reason): &Kind, total: &Total, directory: &Directory<'_>) -> Exits {
    let ExitTime { kvm_ns, vmm_ns, off_ns } = total.time;
    Exits {
        vm: directory.vm_name(*vm),
        vcpu: *vcpu,
        kind: *kind,
        reason: reason.map_or_else(|| "others".to_owned(), |reason| reason.to_string()),
        count: total.count,
        total_ns: total.time.total_ns(),
        max_ns: total.max_ns,
        kvm_ns,
        vmm_ns,
        off_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::names::Names;
    use vslice_core::timeline::{HardwareExit, UserspaceExit};
    use vslice_core::units::{HostNs, Tid};

    fn exit(reason: ExitReason, kvm_ns: u64, off_ns: u64) -> Exit {
        let time = ExitTime { kvm_ns, vmm_ns: 1, off_ns };
        Exit { tid: Tid(1), reason, start: HostNs(0), end: HostNs(time.total_ns()), time }
    }

    fn svm(reason: u32) -> ExitReason {
        ExitReason::Hardware(HardwareExit::Svm(reason))
    }

    fn rows(tally: &ExitTally) -> Vec<Exits> {
        tally.rows(&Directory::new(&Names::default(), &[]))
    }

    #[test]
    fn exits_add_up_by_reason_the_longest_total_first() {
        let mut tally = ExitTally::default();
        let io = ExitReason::Userspace(UserspaceExit::Reason(2));
        for (vcpu, exit) in [
            (0, exit(svm(0x7b), 10, 0)),
            (0, exit(svm(0x78), 5, 400)),
            (0, exit(svm(0x7b), 30, 2)),
            (0, exit(io, 0, 7)),
            (1, exit(svm(0x7b), 1, 0)),
        ] {
            tally.add(VmIndex(0), VcpuId(vcpu), &exit);
        }
        let told: Vec<_> = rows(&tally)
            .into_iter()
            .map(|row| {
                assert_eq!(row.total_ns, row.kvm_ns + row.vmm_ns + row.off_ns);
                (row.vcpu.0, row.kind, row.reason, row.count, row.total_ns, row.max_ns)
            })
            .collect();
        let row = |vcpu, kind, reason: &str, count, total_ns, max_ns| {
            (vcpu, kind, reason.to_owned(), count, total_ns, max_ns)
        };
        let expected = [
            row(0, ExitKind::Hardware, "hlt", 1, 406, 406),
            row(0, ExitKind::Hardware, "io", 2, 44, 33),
            row(0, ExitKind::Userspace, "KVM_EXIT_IO", 1, 8, 8),
            row(1, ExitKind::Hardware, "io", 1, 2, 2),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn reasons_beyond_the_list_are_one_row_and_nothing_is_lost() {
        let mut tally = ExitTally::default();
        let count = KINDS_MAX as u64 + 10;
        for reason in 0..u32::try_from(count).unwrap() {
            tally.add(VmIndex(0), VcpuId(0), &exit(svm(reason), u64::from(reason), 0));
        }
        assert!(tally.totals.len() <= KINDS_MAX + 1);
        let rows = rows(&tally);
        assert_eq!((rows.len(), rows[EXITS_MAX].reason.as_str()), (EXITS_MAX + 1, "others"));
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), count);
        assert_eq!(rows.iter().map(|row| row.kvm_ns).sum::<u64>(), count * (count - 1) / 2);
    }
}

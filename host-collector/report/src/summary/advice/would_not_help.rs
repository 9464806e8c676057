//! What people usually try, where its cause has next to nothing of the tail.

use super::asked::Asked;
use super::{BEYOND_MIN, Figure, Remedy, WouldNotHelp};
use crate::summary::causes::Kind;
use vslice_core::join::{Part, Phase};
use vslice_spec::quantity::percent;
use vslice_trace::vmm::Accelerator;

/// What has less than this share of the tail, and no percentile of it that would be worth advice, is not worth a try.
pub(super) const NOT_HELP_SHARE_MAX: f64 = 0.05;

/// Where an idle vCPU waits for a thread of the VMM's, or perhaps for the disk.
const WITH_VMM: [Phase; 3] = [Phase::Queued, Phase::Completed, Phase::Unknown];

const BIG_LOCK: Kind = Kind::State(Part::BqlWait);
const HALT: Kind = Kind::State(Part::Halt);

pub(super) fn would_not_help(asked: &Asked<'_>) -> Vec<WouldNotHelp> {
    // Of a few requests next to nothing is known, and what is not known may be anything.
    let unknown = asked.share_of(Kind::State(Part::Unknown));
    if asked.class.count < BEYOND_MIN || unknown >= NOT_HELP_SHARE_MAX {
        return Vec::new();
    }
    let rows = [iothread(asked), pinning(asked), faster_disk(asked), halt_polling(asked)];
    rows.into_iter().flatten().collect()
}

/// The share of some causes together, if it is next to nothing.
fn next_to_nothing(asked: &Asked<'_>, causes: &[(Kind, &[Phase])]) -> Option<(f64, Vec<Figure>)> {
    if causes.iter().any(|(kind, _)| asked.may_gain(*kind)) {
        return None;
    }
    let totals = causes.iter().map(|(kind, phases)| asked.total_in(*kind, phases));
    let share = asked.share(totals.fold(0, u64::saturating_add));
    let mut figures: Vec<Figure> =
        causes.iter().flat_map(|(kind, phases)| asked.figures_in(*kind, phases)).collect();
    figures.dedup();
    (share < NOT_HELP_SHARE_MAX).then_some((share, figures))
}

/// An iothread takes away what the big lock and the main loop take. Who is in the vCPU's way is the same with it.
fn iothread(asked: &Asked<'_>) -> Option<WouldNotHelp> {
    let causes = [(BIG_LOCK, Phase::ALL.as_slice()), (HALT, WITH_VMM.as_slice())];
    let (_, figures) = next_to_nothing(asked, &causes)?;
    let lock = part(asked.share_of(BIG_LOCK));
    let halts_ns = asked.total_in(HALT, &WITH_VMM);
    let mut because = format!("the big lock is {lock}");
    if halts_ns > 0 {
        let halts = percent(asked.share(halts_ns));
        because
            .push_str(&format!(", and for {halts} of it an idle vCPU waited for QEMU's threads"));
    }
    Some(WouldNotHelp { remedy: Remedy::Iothread, because, figures })
}

/// `1.5 % of the tail`.
fn part(share: f64) -> String {
    if share > 0.0 {
        format!("{} of the tail", percent(share))
    } else {
        "nothing of the tail".to_owned()
    }
}

fn pinning(asked: &Asked<'_>) -> Option<WouldNotHelp> {
    let (share, figures) = next_to_nothing(asked, &[(Kind::PcpuWait, &Phase::ALL)])?;
    let because = format!("waiting for a pCPU is {}", part(share));
    Some(WouldNotHelp { remedy: Remedy::Pinning, because, figures })
}

fn faster_disk(asked: &Asked<'_>) -> Option<WouldNotHelp> {
    // Where the phases are not known, all of it may be the disk's.
    let unphased = [Kind::OnPcpu, Kind::PcpuWait, BIG_LOCK, HALT];
    let unphased = unphased.map(|kind| asked.total_in(kind, &[Phase::Unknown]));
    if asked.share(unphased.into_iter().fold(0, u64::saturating_add)) >= NOT_HELP_SHARE_MAX {
        return None;
    }
    let (share, figures) = next_to_nothing(asked, &[(Kind::Device, &Phase::ALL)])?;
    let because = format!("the host's disk is {}", part(share));
    Some(WouldNotHelp { remedy: Remedy::FasterDisk, because, figures })
}

/// Halt polling saves wakeups of halted vCPUs, under KVM alone.
fn halt_polling(asked: &Asked<'_>) -> Option<WouldNotHelp> {
    let remedy = Remedy::HaltPolling;
    match asked.accelerator()? {
        Accelerator::Kvm => {
            let causes = [(HALT, Phase::ALL.as_slice()), (Kind::PcpuWait, Phase::ALL.as_slice())];
            let (share, figures) = next_to_nothing(asked, &causes)?;
            let because = format!("halts and wakeups are {}", part(share));
            Some(WouldNotHelp { remedy, because, figures })
        }
        Accelerator::Tcg if asked.total_of(HALT) > 0 => Some(WouldNotHelp {
            remedy,
            because: "it is KVM's, and under TCG there is none".to_owned(),
            figures: Vec::new(),
        }),
        _ => None,
    }
}

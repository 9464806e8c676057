//! An attach that starts nothing in the guest, beside one that observes the same VM at the same time: for how long
//! nobody was there to take an I/O, as the host alone tells it, holds what the guest's own stamps show.

use super::attached::{Attached, HostOnly, Recorded};
use super::figures::say;
use super::guest::LoadGuest;
use super::{NEIGHBOUR, PSYNC, fio, neighbour};
use crate::host_view::Held;
use libtest_mimic::Failed;
use vslice_tests::Lab;

/// Two recordings stamp one event of the kernel one after the other, while this machine's own host may take the pCPU
/// away; most are apart by less than 2 us.
const STAMPS_APART_NS: u64 = 20_000;

/// For how many, of one, the range holds. What is left is I/O that another vCPU took than the one that completed it.
const SHARE_MIN: f64 = 0.98;

/// Requests of fio that are known from both sides at least: of 2,000, one at a time on one vCPU.
const OF_FIO_MIN: usize = 1000;

/// fio, with a busy process on the pCPU of its vCPU.
pub(super) fn fio_is_held(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    let beside = Attached::start(lab, &[])?;
    let attached = Attached::start(lab, &["--observe", "--devices", "vdb"])?;
    let busy = neighbour(1)?;
    fio::run(guest, &format!("{PSYNC} --cpus_allowed=1"), 1)?;
    drop(busy);
    let (recorded, host_only) = (attached.finish()?, beside.finish_host_only()?);
    is_held("fio", &recorded, &host_only, OF_FIO_MIN)?;
    for line in host_only.page.lines().take(30) {
        say(line);
    }
    if !host_only.page.contains(NEIGHBOUR) {
        return Err(format!("the host's view does not name it:\n{}", host_only.page).into());
    }
    Ok(())
}

/// That what was observed lies within what the host alone told.
pub(super) fn is_held(
    load: &str,
    recorded: &Recorded,
    host_only: &HostOnly,
    known_min: usize,
) -> Result<(), Failed> {
    let held = Held::of_two(&host_only.path, &recorded.path, STAMPS_APART_NS)?;
    say(&format!("{load}, the host alone beside what was observed: {}", held.words()));
    if held.known_count() < known_min {
        return Err(format!("too few are known from both sides: {}", held.words()).into());
    }
    // Where nobody was ever missing, a range of nothing would hold it too.
    if held.kept_ns() == 0 || held.share() < SHARE_MIN || held.in_order_share() < SHARE_MIN {
        return Err(format!("the range does not hold: {}", held.words()).into());
    }
    Ok(())
}

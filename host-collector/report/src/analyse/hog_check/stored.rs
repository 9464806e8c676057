//! What the hogs of one guest told, read once and as far as it is needed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use vslice_core::units::VcpuId;
use vslice_trace::{HogGapItem, RunDir, StoreError, StreamReader, VmName};

/// Gaps of other hogs that are kept at most while the next one of one hog is looked for. All are read up to about
/// the same time, so one that has told nothing while the others told so much is taken for one that tells nothing
/// any more.
const PENDING_MAX: usize = 1 << 16;

/// The gaps of a guest's hogs, which come in one stream.
#[derive(Debug)]
pub(super) struct StoredGaps {
    stream: StreamReader<HogGapItem>,
    /// Those that were read and not asked for yet, of each hog that is asked for.
    pending: BTreeMap<VcpuId, VecDeque<HogGapItem>>,
    pending_count: usize,
    error: Option<StoreError>,
}

impl StoredGaps {
    /// `None` where there are none: runs of a vslice before there was this stream have none.
    ///
    /// # Errors
    /// When it cannot be read, or is no such stream.
    pub(super) fn open(
        run: &RunDir,
        vm: &VmName,
        hogs: &BTreeSet<VcpuId>,
    ) -> Result<Option<StoredGaps>, StoreError> {
        let path = run.hog_gaps_path(vm);
        let Some(stream) = crate::analyse::optional(StreamReader::open(&path).map(Some))? else {
            return Ok(None);
        };
        let pending = hogs.iter().map(|vcpu| (*vcpu, VecDeque::new())).collect();
        let mut gaps = StoredGaps { stream, pending, pending_count: 0, error: None };
        let is_told = gaps.read_on();
        match gaps.take_error() {
            Some(error) => Err(error),
            None => Ok(is_told.then_some(gaps)),
        }
    }

    /// Reads another block; whether there was one.
    fn read_on(&mut self) -> bool {
        let block = self.stream.next_block().unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            None
        });
        let Some(block) = block else { return false };
        for gap in block {
            if let Some(pending) = self.pending.get_mut(&gap.vcpu) {
                pending.push_back(gap);
                self.pending_count += 1;
            }
        }
        true
    }

    /// The next one of a hog.
    fn next_of(&mut self, vcpu: VcpuId) -> Option<HogGapItem> {
        loop {
            if let Some(gap) = self.pending.get_mut(&vcpu)?.pop_front() {
                self.pending_count -= 1;
                return Some(gap);
            }
            if self.pending_count >= PENDING_MAX || !self.read_on() {
                return None;
            }
        }
    }

    /// Lets go of what a hog told and will tell.
    fn leave_out(&mut self, vcpu: VcpuId) {
        let gone = self.pending.remove(&vcpu);
        self.pending_count -= gone.map_or(0, |gone| gone.len());
    }

    /// Why the rest could not be read.
    pub(super) fn take_error(&mut self) -> Option<StoreError> {
        self.error.take()
    }
}

/// The gaps that one hog told of, in order of time. Once nobody reads them any more they are not kept.
#[derive(Debug)]
pub(super) struct GapsOfHog {
    gaps: Rc<RefCell<StoredGaps>>,
    vcpu: VcpuId,
}

impl GapsOfHog {
    pub(super) fn new(gaps: &Rc<RefCell<StoredGaps>>, vcpu: VcpuId) -> GapsOfHog {
        GapsOfHog { gaps: Rc::clone(gaps), vcpu }
    }
}

impl Iterator for GapsOfHog {
    type Item = HogGapItem;

    fn next(&mut self) -> Option<HogGapItem> {
        self.gaps.borrow_mut().next_of(self.vcpu)
    }
}

impl Drop for GapsOfHog {
    fn drop(&mut self) {
        self.gaps.borrow_mut().leave_out(self.vcpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn::stream;
    use vslice_core::units::GuestTicks;

    fn gaps(items: Vec<HogGapItem>, hogs: &[u16]) -> Option<Rc<RefCell<StoredGaps>>> {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let vm = VmName::try_from("vm1").unwrap();
        stream(&run.hog_gaps_path(&vm), items, true);
        let hogs = hogs.iter().copied().map(VcpuId).collect();
        StoredGaps::open(&run, &vm, &hogs).unwrap().map(|gaps| Rc::new(RefCell::new(gaps)))
    }

    fn gap(vcpu: u16, start: u64) -> HogGapItem {
        HogGapItem { vcpu: VcpuId(vcpu), start: GuestTicks(start), end: GuestTicks(start + 1) }
    }

    #[test]
    fn each_hog_is_told_apart_however_they_are_asked() {
        let items: Vec<HogGapItem> =
            (0..10_000).map(|turn| gap(1 + turn % 3, turn.into())).collect();
        let gaps = gaps(items.clone(), &[1, 3]).unwrap();
        let of = |vcpu: u16| items.iter().copied().filter(move |gap| gap.vcpu == VcpuId(vcpu));
        let [mut of_1, of_3] = [1, 3].map(|vcpu| GapsOfHog::new(&gaps, VcpuId(vcpu)));
        assert!(of_1.by_ref().take(50).eq(of(1).take(50)));
        assert!(of_3.eq(of(3)));
        assert!(of_1.eq(of(1).skip(50)));
        assert_eq!(gaps.borrow().pending_count, 0, "what nobody asks for is not kept");
    }

    #[test]
    fn a_hog_that_tells_nothing_is_looked_for_in_bounded_memory() {
        let count = 2 * u64::try_from(PENDING_MAX).unwrap();
        let items: Vec<HogGapItem> = (0..count).map(|turn| gap(1, turn)).collect();
        let gaps = gaps([items, vec![gap(2, 7)]].concat(), &[1, 2]).unwrap();
        assert_eq!(GapsOfHog::new(&gaps, VcpuId(2)).next(), None);
        assert!(gaps.borrow().pending_count <= PENDING_MAX + vslice_trace::BLOCK_ITEMS_MAX);
        let told_by_1 = GapsOfHog::new(&gaps, VcpuId(1)).count();
        assert_eq!(told_by_1 as u64, count, "the other one is all there");
    }

    #[test]
    fn no_stream_and_an_empty_one_are_no_gaps() {
        assert!(gaps(vec![], &[1]).is_none());
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let vm = VmName::try_from("vm1").unwrap();
        assert!(StoredGaps::open(&run, &vm, &BTreeSet::new()).unwrap().is_none());
    }
}

//! The columns of hogs' gaps; see the table in the module above.

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_runs, put_varints,
};
use vslice_core::units::{GuestTicks, VcpuId};

/// One item of `gaps-<vm>.vsr`: a time in which a hog did not look at its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HogGapItem {
    /// The vCPU that the hog is pinned to.
    pub vcpu: VcpuId,
    /// The hog's last clock reading before the gap.
    pub start: GuestTicks,
    /// Its first clock reading after the gap.
    pub end: GuestTicks,
}

impl Columnar for HogGapItem {
    const KIND: StreamKind = StreamKind::HogGaps;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_runs(items.iter().map(|item| item.vcpu.0.into()), payload);
        put_deltas(items.iter().map(|item| item.start.0), payload);
        // A guest may tell nonsense; a wrapped difference still comes back exactly.
        put_varints(items.iter().map(|item| item.end.0.wrapping_sub(item.start.0)), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let vcpus = columns.runs::<u16>(count)?;
        let starts = columns.deltas::<u64>(count)?;
        let lengths = columns.varints::<u64>(count)?;
        let item = |place: usize| HogGapItem {
            vcpu: VcpuId(vcpus[place]),
            start: GuestTicks(starts[place]),
            end: GuestTicks(starts[place].wrapping_add(lengths[place])),
        };
        Ok((0..count).map(item).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(gaps: &[(u16, u64, u64)]) -> Vec<HogGapItem> {
        let item = |&(vcpu, start, end): &(u16, u64, u64)| HogGapItem {
            vcpu: VcpuId(vcpu),
            start: GuestTicks(start),
            end: GuestTicks(end),
        };
        gaps.iter().map(item).collect()
    }

    #[test]
    fn gaps_have_these_bytes() {
        let mut payload = Vec::new();
        HogGapItem::encode(&items(&[(1, 10, 12), (1, 20, 25)]), &mut payload);
        assert_eq!(payload, [1, 1, 20, 20, 2, 5]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(gaps in prop::collection::vec(any::<(u16, u64, u64)>(), 0..40)) {
            let items = items(&gaps);
            let mut payload = Vec::new();
            HogGapItem::encode(&items, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(HogGapItem::decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}

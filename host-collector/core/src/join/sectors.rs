//! What lies on a disk, found by its sectors.

use std::collections::BTreeMap;
use std::ops::Range;

/// Things that each have a range of sectors and a number of their own; finding those on given sectors
/// takes no longer the more there are elsewhere.
#[derive(Debug)]
pub(crate) struct BySector<T> {
    /// By first sector and number.
    items: BTreeMap<(u64, u64), Item<T>>,
    /// No range is longer.
    longest: u64,
    #[cfg(test)]
    pub(crate) comparisons_count: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Item<T> {
    end: u64,
    value: T,
}

impl<T> Default for BySector<T> {
    fn default() -> Self {
        BySector {
            items: BTreeMap::new(),
            longest: 0,
            #[cfg(test)]
            comparisons_count: std::cell::Cell::new(0),
        }
    }
}

impl<T> BySector<T> {
    pub(crate) fn insert(&mut self, sectors: &Range<u64>, number: u64, value: T) {
        self.longest = self.longest.max(sectors.end.saturating_sub(sectors.start));
        self.items.insert((sectors.start, number), Item { end: sectors.end, value });
    }

    pub(crate) fn remove(&mut self, first_sector: u64, number: u64) -> Option<T> {
        self.items.remove(&(first_sector, number)).map(|item| item.value)
    }

    pub(crate) fn get(&self, first_sector: u64, number: u64) -> Option<&T> {
        self.items.get(&(first_sector, number)).map(|item| &item.value)
    }

    pub(crate) fn get_mut(&mut self, first_sector: u64, number: u64) -> Option<&mut T> {
        self.items.get_mut(&(first_sector, number)).map(|item| &mut item.value)
    }

    /// Those that have a sector in common with these.
    pub(crate) fn overlapping(&self, sectors: &Range<u64>) -> impl Iterator<Item = &T> {
        let from = sectors.start;
        // A range of which this is the start cannot reach there.
        let near = self.items.range((from.saturating_sub(self.longest), 0)..(sectors.end, 0));
        near.filter(move |(_, item)| {
            #[cfg(test)]
            self.comparisons_count.set(self.comparisons_count.get() + 1);
            item.end > from
        })
        .map(|(_, item)| &item.value)
    }

    /// The same, to be changed.
    pub(crate) fn overlapping_mut(&mut self, sectors: &Range<u64>) -> impl Iterator<Item = &mut T> {
        let from = sectors.start;
        #[cfg(test)]
        let comparisons_count = &self.comparisons_count;
        let near = self.items.range_mut((from.saturating_sub(self.longest), 0)..(sectors.end, 0));
        near.filter(move |(_, item)| {
            #[cfg(test)]
            comparisons_count.set(comparisons_count.get() + 1);
            item.end > from
        })
        .map(|(_, item)| &mut item.value)
    }
}

/// Ranges a set keeps at most.
const RANGES_MAX: usize = 4096;

/// A set of sectors in bounded memory: with too many ranges, neighbours run together, so that it may
/// have more than was put in, and never less.
#[derive(Debug, Default)]
pub(crate) struct SectorSet {
    /// Ends by beginnings; no two touch.
    ranges: BTreeMap<u64, u64>,
}

impl SectorSet {
    pub(crate) fn insert(&mut self, sectors: &Range<u64>) {
        let Range { mut start, mut end } = *sectors;
        while let Some((&first, &last)) =
            self.ranges.range(..=end).next_back().filter(|(_, last)| **last >= start)
        {
            self.ranges.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.ranges.insert(start, end);
        if self.ranges.len() > RANGES_MAX {
            let next = self.ranges.range(end..).next().map(|(first, last)| (*first, *last));
            let before =
                self.ranges.range(..start).next_back().map(|(first, last)| (*first, *last));
            let gap_after = next.map(|(first, last)| (first - end, first, start, last));
            let gap_before = before.map(|(first, last)| (start - last, start, first, end));
            if let Some((_, gone, start, end)) = gap_after.into_iter().chain(gap_before).min() {
                self.ranges.remove(&gone);
                self.ranges.insert(start, end);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn overlaps(&self, sectors: &Range<u64>) -> bool {
        let before = self.ranges.range(..sectors.end).next_back();
        before.is_some_and(|(_, end)| *end > sectors.start)
    }
}

impl FromIterator<Range<u64>> for SectorSet {
    fn from_iter<Ranges: IntoIterator<Item = Range<u64>>>(ranges: Ranges) -> SectorSet {
        let mut set = SectorSet::default();
        ranges.into_iter().for_each(|range| set.insert(&range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..60_u64, 1..12_u64).prop_map(|(start, length)| start..start + length)
    }

    proptest! {
        #[test]
        fn what_lies_there_is_found_and_nothing_else(
            ranges in prop::collection::vec(range(), 0..30), wanted in range(),
        ) {
            let (mut all, mut set) = (BySector::default(), SectorSet::default());
            for (number, sectors) in (0..).zip(&ranges) {
                all.insert(sectors, number, number);
                set.insert(sectors);
            }
            let mut found: Vec<u64> = all.overlapping(&wanted).copied().collect();
            found.sort_unstable();
            let is_there = |sectors: &Range<u64>| {
                sectors.start < wanted.end && wanted.start < sectors.end
            };
            let expected: Vec<u64> =
                (0..).zip(&ranges).filter(|(_, one)| is_there(one)).map(|(number, _)| number).collect();
            prop_assert_eq!(set.overlaps(&wanted), !expected.is_empty());
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_set_stays_small_and_forgets_nothing() {
        let mut set = SectorSet::default();
        for place in 0..3 * RANGES_MAX as u64 {
            set.insert(&(place * 10..place * 10 + 3));
        }
        assert_eq!(set.ranges.len(), RANGES_MAX);
        assert!(
            (0..3 * RANGES_MAX as u64).all(|place| set.overlaps(&(place * 10..place * 10 + 1)))
        );
        assert!(!set.overlaps(&(5..8)));
    }
}

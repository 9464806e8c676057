//! Where each read goes: a pure sequence, the same in every run.

use crate::split_mix::{SplitMix64, scale};
use crate::workload::Pattern;

/// Endless offsets in bytes, each one the start of a block of the target.
///
/// The last block of a target that is no multiple of the block size is one of them: reading it
/// gives less than a block.
#[derive(Debug, Clone)]
pub struct Offsets {
    pattern: Pattern,
    block_bytes: u64,
    /// At least 1.
    block_count: u64,
    /// How many offsets were given out, with [`Pattern::Seq`] since the last start over.
    position: u64,
}

impl Offsets {
    /// The offsets in a target of `target_bytes`, at least 1, for blocks of `block_bytes`.
    #[must_use]
    pub fn new(pattern: Pattern, block_bytes: u32, target_bytes: u64) -> Offsets {
        let block_bytes = u64::from(block_bytes);
        let block_count = target_bytes.div_ceil(block_bytes).max(1);
        Offsets { pattern, block_bytes, block_count, position: 0 }
    }

    fn at(&self, position: u64) -> u64 {
        let block = match self.pattern {
            Pattern::Seq => position % self.block_count,
            Pattern::Rand => self.random(position),
        };
        block * self.block_bytes
    }

    fn random(&self, position: u64) -> u64 {
        scale(SplitMix64(0).at(position), self.block_count)
    }
}

impl Iterator for Offsets {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let block = match self.pattern {
            // No division, which would take longer than the rest of this.
            Pattern::Seq => self.position,
            Pattern::Rand => self.random(self.position),
        };
        let offset = block * self.block_bytes;
        self.position += 1;
        if self.pattern == Pattern::Seq && self.position == self.block_count {
            self.position = 0;
        }
        Some(offset)
    }
}

/// Where a reader's request goes, as an offset in bytes into its target of `target_bytes`: the
/// `index`th in order of submission, from 0 on.
#[must_use]
pub fn offset_of(pattern: Pattern, block_bytes: u32, target_bytes: u64, index: u64) -> u64 {
    Offsets::new(pattern, block_bytes.max(1), target_bytes).at(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(count: usize, pattern: Pattern, block_bytes: u32, target_bytes: u64) -> Vec<u64> {
        Offsets::new(pattern, block_bytes, target_bytes).take(count).collect()
    }

    #[test]
    fn sequential_offsets_start_over_at_the_end() {
        assert_eq!(first(5, Pattern::Seq, 4096, 12288), [0, 4096, 8192, 0, 4096]);
    }

    #[test]
    fn each_offset_follows_from_its_index_alone() {
        for pattern in [Pattern::Seq, Pattern::Rand] {
            let all = first(40, pattern, 4096, 10 * 4096);
            let single = (0..40).map(|index| offset_of(pattern, 4096, 10 * 4096, index));
            assert_eq!(single.collect::<Vec<_>>(), all);
        }
    }

    #[test]
    fn the_unaligned_end_is_a_block_too() {
        assert_eq!(first(4, Pattern::Seq, 4096, 8193), [0, 4096, 8192, 0]);
        assert_eq!(first(2, Pattern::Seq, 4096, 4095), [0, 0]);
    }

    /// The reference values are those of `splitmix64.c` with `x = 0`.
    #[test]
    fn the_random_sequence_is_splitmix64() {
        let numbers: Vec<u64> = (0..3).map(|position| SplitMix64(0).at(position)).collect();
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
        // 0xe2 / 0x100 of 1000 blocks, and so on.
        assert_eq!(first(3, Pattern::Rand, 512, 512_000), [883 * 512, 431 * 512, 26 * 512]);
    }

    #[test]
    fn random_offsets_reach_every_block_about_equally() {
        let mut reads_per_block = [0_u32; 16];
        for offset in first(16_000, Pattern::Rand, 4096, 16 * 4096) {
            reads_per_block[usize::try_from(offset / 4096).unwrap()] += 1;
        }
        assert!(reads_per_block.iter().all(|reads| (900..1100).contains(reads)));
    }

    proptest! {
        #[test]
        fn every_offset_is_an_aligned_block_within_the_target(
            random: bool,
            block_shift in 9_u32..=20,
            target_bytes in 1_u64..1 << 50,
        ) {
            let pattern = if random { Pattern::Rand } else { Pattern::Seq };
            for offset in first(100, pattern, 1 << block_shift, target_bytes) {
                prop_assert_eq!(offset % (1 << block_shift), 0);
                prop_assert!(offset < target_bytes);
            }
        }
    }
}

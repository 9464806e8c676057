//! Numbers that look random and are the same in every run.

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. The
/// field is the seed; equal seeds give equal numbers.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

/// What the state grows by from number to number.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl SplitMix64 {
    /// The next number: 64 even and independent bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody wants an adapter")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// The number that follows `position` others, whatever was drawn so far.
    #[must_use]
    pub fn at(&self, position: u64) -> u64 {
        mixed(self.0.wrapping_add(position.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(scale(self.next(), bound as u64)).unwrap_or(0)
    }
}

fn mixed(state: u64) -> u64 {
    let bits = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Maps 64 random bits to `[0, bound)` without a division. That they do not divide evenly favours some
/// numbers by less than `bound` in 2^64, which nobody will notice.
pub(crate) fn scale(bits: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(bits) * u128::from(bound)) >> 64)
        .expect("a product of two 64-bit numbers has 128 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        // The first three of <https://prng.di.unimi.it/splitmix64.c> from 1234567.
        let mut numbers = SplitMix64(1_234_567);
        let three = [numbers.next(), numbers.next(), numbers.next()];
        assert_eq!((0..3).map(|place| SplitMix64(1_234_567).at(place)).collect::<Vec<_>>(), three);
        assert_eq!(
            three,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_number_below_a_bound_comes_up_about_as_often() {
        let mut numbers = SplitMix64(1);
        let mut counts = [0_u32; 5];
        for _ in 0..10_000 {
            counts[numbers.below(5)] += 1;
        }
        assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    }
}

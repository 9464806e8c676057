//! How far a sampled share may be from the true one.

/// The normal distribution holds 95 % between minus and plus this.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a share of which `hits` out of `count` independent looks were seen: Wilson's
/// score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212), which unlike `p +- z * s`
/// also holds for shares near 0 and 1. Everything is possible where nobody has looked.
///
/// Looks at a thread whose states last longer than the time between two looks are not independent;
/// the true interval is wider then.
#[must_use]
pub fn wilson_95(hits: u64, count: u64) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let n = count as f64;
    let p = hits.min(count) as f64 / n;
    let z2 = Z_95 * Z_95;
    let centre = p + z2 / (2.0 * n);
    let spread = Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let low = ((centre - spread) / (1.0 + z2 / n)).clamp(0.0, p);
    let high = ((centre + spread) / (1.0 + z2 / n)).clamp(p, 1.0);
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_intervals() {
        assert_eq!(wilson_95(0, 0), (0.0, 1.0));
        // Newcombe, Statistics in Medicine 17, 1998, table I: 81 of 263 and 0 of 20.
        let close = |(low, high): (f64, f64), expected: (f64, f64)| {
            (low - expected.0).abs() < 5e-5 && (high - expected.1).abs() < 5e-5
        };
        assert!(close(wilson_95(81, 263), (0.2553, 0.3662)), "{:?}", wilson_95(81, 263));
        assert!(close(wilson_95(0, 20), (0.0, 0.1611)), "{:?}", wilson_95(0, 20));
    }

    /// The probability that the interval of a sample of `n` holds the true share `p`, summed over
    /// all samples that there can be.
    fn coverage(n: u64, p: f64) -> f64 {
        let mut probability = (1.0 - p).powf(n as f64);
        let mut covered = 0.0;
        for hits in 0..=n {
            let (low, high) = wilson_95(hits, n);
            if low <= p && p <= high {
                covered += probability;
            }
            probability *= (n - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p);
        }
        covered
    }

    proptest! {
        #[test]
        fn each_end_is_where_the_seen_share_is_z_deviations_off(
            count in 1_u64..1_000_000, part in 0.0_f64..=1.0,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of count")]
            let hits = (count as f64 * part) as u64;
            let (n, p) = (count as f64, hits as f64 / count as f64);
            let (low, high) = wilson_95(hits, count);
            prop_assert!(0.0 <= low && low <= p && p <= high && high <= 1.0);
            for end in [low, high] {
                let off = (p - end).powi(2);
                let allowed = Z_95.powi(2) * end * (1.0 - end) / n;
                prop_assert!((off - allowed).abs() <= 1e-9 + 1e-6 * allowed, "{off} {allowed}");
            }
        }

        #[test]
        fn more_looks_narrow_it(hits in 0_u64..1000, more in 0_u64..1000) {
            let width = |(low, high): (f64, f64)| high - low;
            let count = hits + more + 1;
            prop_assert!(width(wilson_95(hits * 4, count * 4)) < width(wilson_95(hits, count)));
        }

        #[test]
        fn it_holds_the_true_share_about_95_times_in_100(n in 100_u64..300, p in 0.1_f64..0.9) {
            let covered = coverage(n, p);
            prop_assert!((0.92..0.98).contains(&covered), "{covered}");
        }
    }
}

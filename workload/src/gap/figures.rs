//! Figures of many lengths, and spans laid over time.

/// A span of time in nanoseconds since the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first nanosecond.
    pub start_ns: u64,
    /// The first one after it.
    pub end_ns: u64,
}

impl Span {
    /// How long it is.
    #[must_use]
    pub fn length_ns(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    fn overlap_ns(self, other: Span) -> u64 {
        self.end_ns.min(other.end_ns).saturating_sub(self.start_ns.max(other.start_ns))
    }
}

/// The figures of a set of lengths. Percentiles are exact: the smallest length that is not exceeded
/// by so large a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total_ns: u64,
    /// Half of them are not longer.
    pub p50_ns: u64,
    /// 90 of 100.
    pub p90_ns: u64,
    /// 99 of 100.
    pub p99_ns: u64,
    /// 999 of 1000.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// The coefficient of variation, the jitter: standard deviation over mean.
    pub variation: f64,
}

impl Figures {
    /// Of these lengths, in any order; all zero if there are none.
    #[must_use]
    pub fn of(lengths_ns: impl IntoIterator<Item = u64>) -> Figures {
        let mut sorted: Vec<u64> = lengths_ns.into_iter().collect();
        sorted.sort_unstable();
        let Some(&max_ns) = sorted.last() else { return Figures::default() };
        let total_ns: u64 = sorted.iter().sum();
        let count = sorted.len();
        let mean_ns = total_ns as f64 / count as f64;
        let squares = sorted.iter().map(|&ns| (ns as f64 - mean_ns).powi(2));
        let deviation_ns = (squares.sum::<f64>() / count as f64).sqrt();
        let permille = |share: usize| sorted[(count * share).div_ceil(1000).max(1) - 1];
        Figures {
            count: count as u64,
            total_ns,
            p50_ns: permille(500),
            p90_ns: permille(900),
            p99_ns: permille(990),
            p999_ns: permille(999),
            max_ns,
            mean_ns,
            variation: if mean_ns > 0.0 { deviation_ns / mean_ns } else { 0.0 },
        }
    }
}

/// The times between gaps: of each only where both ends were seen, so nothing before the first gap
/// and nothing after the last. `gaps` are in order of time.
#[must_use]
pub fn timeslices(gaps: &[Span]) -> Vec<Span> {
    let pairs = gaps.windows(2);
    pairs.map(|pair| Span { start_ns: pair[0].end_ns, end_ns: pair[1].start_ns }).collect()
}

/// Cuts `[0, total_ns)` into `cells` of equal length (to a nanosecond), and says which share of
/// each is covered by `gaps`, in [0, 1]. `gaps` do not overlap.
#[must_use]
pub fn shares_of_cells(gaps: &[Span], total_ns: u64, cells: u32) -> Vec<f64> {
    let edge_ns = |cell: u32| {
        let edge_ns = u128::from(total_ns) * u128::from(cell) / u128::from(cells.max(1));
        u64::try_from(edge_ns).expect("an edge is not beyond the total")
    };
    (0..cells)
        .map(|cell| {
            let cell = Span { start_ns: edge_ns(cell), end_ns: edge_ns(cell + 1) };
            let taken_ns = taken_within(gaps, cell);
            if cell.length_ns() == 0 { 0.0 } else { taken_ns as f64 / cell.length_ns() as f64 }
        })
        .collect()
}

/// How much of `window` is covered by `gaps`, which are in order of time and do not overlap.
#[must_use]
pub fn taken_within(gaps: &[Span], window: Span) -> u64 {
    let first = gaps.partition_point(|gap| gap.end_ns <= window.start_ns);
    let overlapping = gaps[first..].iter().take_while(|gap| gap.start_ns < window.end_ns);
    overlapping.map(|gap| gap.overlap_ns(window)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(start_ns: u64, end_ns: u64) -> Span {
        Span { start_ns, end_ns }
    }

    #[test]
    fn figures_are_exact() {
        let figures = Figures::of((1..=1000).rev());
        assert_eq!((figures.count, figures.total_ns, figures.max_ns), (1000, 500_500, 1000));
        assert_eq!((figures.p50_ns, figures.p90_ns), (500, 900));
        assert_eq!((figures.p99_ns, figures.p999_ns), (990, 999));
        assert!((figures.mean_ns - 500.5).abs() < 1e-9);
        assert!((figures.variation - 0.576_77).abs() < 1e-4, "{}", figures.variation);
        assert_eq!(Figures::of([3, 1, 2]).p50_ns, 2, "one of three is not half of them");
        assert_eq!(Figures::of([7]).p50_ns, 7);
        assert_eq!(Figures::of([7]).variation, 0.0);
        assert_eq!(Figures::of([]), Figures::default());
    }

    #[test]
    fn a_timeslice_has_two_ends() {
        let gaps = [span(10, 20), span(50, 55), span(60, 80)];
        assert_eq!(timeslices(&gaps), [span(20, 50), span(55, 60)]);
        assert_eq!(timeslices(&gaps[..1]), []);
    }

    #[test]
    fn cells_say_what_was_taken_of_them() {
        let gaps = [span(0, 10), span(15, 25)];
        assert_eq!(shares_of_cells(&gaps, 40, 4), [1.0, 0.5, 0.5, 0.0]);
        assert_eq!(shares_of_cells(&gaps, 0, 2), [0.0, 0.0]);
    }

    #[test]
    fn a_window_is_overlapped_in_part() {
        let gaps = [span(10, 20), span(30, 40)];
        for (window, expected) in
            [(span(0, 10), 0), (span(12, 15), 3), (span(15, 35), 10), (span(40, 90), 0)]
        {
            assert_eq!(taken_within(&gaps, window), expected, "{window:?}");
        }
    }

    proptest! {
        #[test]
        fn cells_lose_nothing(
            steps in proptest::collection::vec((1_u64..500, 1_u64..500), 0..40),
            cells in 1_u32..100,
        ) {
            let mut gaps = Vec::new();
            let mut now_ns = 0;
            for (ran_ns, taken_ns) in steps {
                gaps.push(span(now_ns + ran_ns, now_ns + ran_ns + taken_ns));
                now_ns += ran_ns + taken_ns;
            }
            let edge_ns = |cell: u32| now_ns * u64::from(cell) / u64::from(cells);
            let shares = shares_of_cells(&gaps, now_ns, cells);
            let taken_ns: f64 = (0..cells)
                .map(|cell| shares[cell as usize] * (edge_ns(cell + 1) - edge_ns(cell)) as f64)
                .sum();
            let expected_ns: u64 = gaps.iter().map(|gap| gap.length_ns()).sum();
            prop_assert!((taken_ns - expected_ns as f64).abs() < 1e-3);
        }
    }
}

//! Medians and their intervals. Pure.

/// The middle of some values and where the median of all values is likely to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    /// An interval that holds the true median in at least 95 % of all experiments, whatever the
    /// distribution; with fewer than six values, which cannot say so much, their range.
    pub(crate) interval: (f64, f64),
}

/// `None` of no values.
///
/// The interval is that of the sign test: from the k-th smallest to the k-th largest value, where
/// k is the largest number with P(Binomial(n, 1/2) < k) <= 2.5 %.
pub(crate) fn middle(values: impl IntoIterator<Item = f64>) -> Option<Middle> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    let left_out = left_out_count(values.len());
    let interval = (values[left_out], values[values.len() - 1 - left_out]);
    Some(Middle { median: f64::midpoint(values[first], values[last]), interval })
}

/// Values at each end that the interval leaves out.
fn left_out_count(count: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut sum, mut left_out) = (probability, 0);
    while left_out < count / 2 {
        #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
        let ratio = (count - left_out) as f64 / (left_out + 1) as f64;
        if sum > 0.025 {
            break;
        }
        probability *= ratio;
        sum += probability;
        left_out += 1;
    }
    left_out.saturating_sub(1)
}

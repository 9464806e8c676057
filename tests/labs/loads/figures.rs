//! The figures that these tests print, for the notes on what was measured.

use std::io::{self, Write};

/// Not by `eprintln!`, which some test harnesses keep to themselves when a test passes.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "    {line}");
}

/// Of latencies in any order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Percentiles {
    pub(super) count: usize,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
}

impl Percentiles {
    pub(super) fn of(latencies_ns: impl Iterator<Item = u64>) -> Percentiles {
        let mut sorted: Vec<u64> = latencies_ns.collect();
        sorted.sort_unstable();
        // The smallest that so many percent do not exceed.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        let (p50_ns, p99_ns, max_ns) = (at(50), at(99), at(100));
        Percentiles { count: sorted.len(), p50_ns, p99_ns, max_ns }
    }

    /// "1,998 requests, p50 0.304 ms, p99 2.001 ms, max 5.300 ms".
    pub(super) fn words(&self) -> String {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (count, p50, p99, max) =
            (self.count, ms(self.p50_ns), ms(self.p99_ns), ms(self.max_ns));
        format!("{count:5}, p50 {p50:7.3} ms, p99 {p99:7.3} ms, max {max:7.3} ms")
    }
}

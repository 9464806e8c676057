//! The tables are written in memory that does not grow with the run.
//!
//! `cargo test --release -p vslice-fleet --test memory -- --ignored --nocapture` writes 10^7 requests and as many waits,
//! and says how long it took and how large they are.
#![expect(clippy::print_stdout, reason = "what it took is told")]

#[path = "../../report/tests/support/allocated.rs"]
mod allocated;

use allocated::{MEASURED, Peak};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;
use vslice_core::join::Breakdown;
use vslice_core::task::VmIndex;
use vslice_core::timeline::{LockWait, Span};
use vslice_core::units::HostNs;
use vslice_fleet::{FleetTables, Written};
use vslice_report::analyse::chosen::Chosen;
use vslice_report::analyse::drawn::{VM1_VCPU1, manifest, names, run_in, streams};
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run};
use vslice_report::analyse::{SummaryObserver, analyse_with};
use vslice_report::summary::Summary;

/// What a file's end repeats of each row group, and what is longer by chance.
const GROWTH_MAX_BYTES: usize = 4 << 20;

/// What the tables of a run of any length take at most.
const PEAK_MAX_BYTES: usize = 48 << 20;

/// What an analysis of the drawn run tells, to be told again at other times.
#[derive(Default)]
struct Drawn {
    requests: Vec<Breakdown>,
    spans: Vec<Span>,
    lock_waits: Vec<LockWait>,
}

impl Observer for Drawn {
    fn request(&mut self, _: VmIndex, breakdown: &Breakdown) {
        self.requests.push(breakdown.clone());
    }

    fn span(&mut self, span: &Span) {
        if span.tid == VM1_VCPU1 {
            self.spans.push(span.clone());
        }
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        self.lock_waits.push(*wait);
    }
}

fn drawn(scratch: &Path) -> Result<(Drawn, Summary), Box<dyn Error>> {
    let run = run_in(&scratch.join("drawn"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let (mut drawn, mut summary) = (Drawn::default(), SummaryObserver::default());
    analyse_with(run.path(), &mut [&mut drawn, &mut summary])?;
    Ok((drawn, summary.into_summary().ok_or("no end")?))
}

/// What writing so many requests, with the spans of as many turns, took in memory at most; and the rows by table.
fn written(turns: u64) -> Result<(usize, Written), Box<dyn Error>> {
    let _alone = MEASURED.lock()?;
    let scratch = tempfile::tempdir()?;
    let (drawn, summary) = drawn(scratch.path())?;
    let manifest = manifest();
    let window = MeasuredWindow { start: HostNs(0), end: HostNs(u64::MAX) };
    let chosen = Chosen::whole(window);
    let run = Run { manifest: &manifest, window, chosen: &chosen, stacks: &[], locks: &[] };
    let peak = Peak::from_now();
    let began = Instant::now();
    let folder = scratch.path().join("fleet");
    let mut tables = FleetTables::new(&folder, &scratch.path().join("drawn"));
    tables.start(&run);
    for turn in 0..turns {
        // What does not repeat, as nothing does in a real run.
        let odd = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 50_000;
        let at = |time: HostNs| HostNs(time.0 + turn * 2_000_000);
        for request in &drawn.requests[..1] {
            let (start, end) = (at(request.start), HostNs(at(request.end).0 + odd));
            tables.request(VmIndex(0), &Breakdown { start, end, ..request.clone() });
        }
        for span in &drawn.spans {
            tables.span(&Span { start: at(span.start), end: at(span.end), ..span.clone() });
        }
        for wait in &drawn.lock_waits {
            tables.lock_wait(&LockWait { start: at(wait.start), end: at(wait.end), ..*wait });
        }
    }
    let written = tables.finish(&summary)?;
    let peak_bytes = peak.bytes();
    let bytes = bytes_below(&folder)?;
    println!(
        "{:?}: {:.1} s, {:.1} MiB at most in memory, {bytes} bytes",
        written.rows,
        began.elapsed().as_secs_f64(),
        peak_bytes as f64 / f64::from(1 << 20),
    );
    let rows: HashMap<&str, u64> = written.rows.iter().copied().collect();
    assert_eq!([rows["requests"], rows["lock_waits"]], [turns, turns]);
    assert!(rows["vcpu_waits"] >= turns && rows["timeslices"] >= turns, "{rows:?}");
    Ok((peak_bytes, written))
}

fn bytes_below(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { bytes_below(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}

#[test]
fn four_times_the_rows_take_no_more_memory() -> Result<(), Box<dyn Error>> {
    // The shorter one fills a row group of every table that grows: of lock waits, with 43,000 rows, and the others.
    let (short, long) = (written(45_000)?.0, written(180_000)?.0);
    assert!(long <= short + GROWTH_MAX_BYTES, "{short} bytes, and {long} of four times the rows");
    assert!(long <= PEAK_MAX_BYTES, "{long} bytes");
    Ok(())
}

#[test]
#[ignore = "takes minutes: see the head of the file"]
fn ten_million_requests_take_no_more_memory() -> Result<(), Box<dyn Error>> {
    let peak = written(10_000_000)?.0;
    assert!(peak <= PEAK_MAX_BYTES, "{peak} bytes");
    Ok(())
}

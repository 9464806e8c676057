//! `vslice-agent solo`: what a guest can see of its own vCPUs being taken away, without a host.
//!
//! ```text
//! options     the command line
//! counters    what the guest's kernel counts about a loop's thread
//! steal       what it tells of steal, per vCPU
//! measure     one run: loops, a reader, and the counters around them
//! calibrate   how fine the loop is here, and what its counters cost
//! analyse     from what the loops left behind to the report (pure)
//! model       the report, which is also the JSON
//! text        the report as text
//! hlog        distributions as an HdrHistogram log
//! ```

mod analyse;
mod calibrate;
mod counters;
mod hlog;
mod measure;
mod model;
mod options;
mod steal;
mod text;

use anyhow::Context;
pub(crate) use options::Solo;
use std::sync::atomic::AtomicBool;

/// Measures what `solo` asks for until `interrupted`, and returns what is to be printed.
/// `progress` is given a line now and then, to overwrite the one before.
pub(crate) fn run(
    solo: &Solo,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<String> {
    solo.check()?;
    if solo.calibrate {
        let calibration = calibrate::calibrate(solo)?;
        return if solo.json {
            Ok(serde_json::to_string_pretty(&calibration)? + "\n")
        } else {
            Ok(text::calibration(&calibration))
        };
    }
    let measured = measure::measure(solo, interrupted, progress)?;
    let analysed = analyse::analyse(solo, &measured);
    if let Some(path) = &solo.hlog {
        std::fs::write(path, hlog::render(&analysed, measured.wall_start_ms)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if solo.gaps {
        // Thousands of gaps are for programs, and may have to go over a slow console.
        Ok(serde_json::to_string(&analysed.report)? + "\n")
    } else if solo.json {
        Ok(serde_json::to_string_pretty(&analysed.report)? + "\n")
    } else {
        Ok(text::render(&analysed.report))
    }
}

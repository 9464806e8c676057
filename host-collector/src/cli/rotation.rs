//! `vslice attach --rotate`: a continuous recording, from its arguments.

use super::attach::{AttachArgs, duration};
use super::list::{RUNS, tell};
use super::run::interrupts;
use crate::rotate::{Limits, Rotation, Settings};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use nix::sys::statvfs::statvfs;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vslice_host::vm::find_all;
use vslice_lab::quantity;
use vslice_record::EvidencePlan;
use vslice_spec::quantity::bytes;

/// Runs shorter than this are mostly beginning and end.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Runs that are kept at most, so that `vslice report --at` and `vslice list` find all of them.
const RUNS_MAX: u32 = 900;

/// For how long runs are kept, if nothing is said of that.
const KEEP: Duration = Duration::from_secs(2 * 3_600);

/// Where the runs are by default, below the folder of all runs.
const FOLDER: &str = "continuous";

/// A recorder that nobody ends, because no other could be started, ends by itself after so many intervals and a minute.
const INTERVALS_MAX: u32 = 2;

/// How a recording goes on for ever.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Record continuously")]
#[group(skip)]
pub(crate) struct RotationArgs {
    /// Record until Ctrl-C, with a new run directory each time this has passed, such as 5min; --output is the folder of
    /// the runs then [default: runs/continuous]. No report is made: see `vslice report --at`
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = [
        "duration", "agents", "pin", "no_report", "Form", "Exports",
    ])]
    pub(super) rotate: Option<Duration>,
    /// Remove runs that ended longer ago than this [default: 2h, or 900 times --rotate if that is less]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "rotate")]
    keep: Option<Duration>,
    /// Remove the oldest runs when all together take more than this on the disk, such as 20GiB [default: a tenth of the
    /// file system]. A run that grows to a quarter of it is ended early
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes, requires = "rotate")]
    keep_bytes: Option<u64>,
}

/// Records until it is interrupted.
pub(super) fn execute(args: &AttachArgs, interval: Duration) -> anyhow::Result<u8> {
    let RotationArgs { keep, keep_bytes, .. } = args.rotation;
    if interval < INTERVAL_MIN {
        bail!("runs of less than a second are mostly beginning and end: use a longer --rotate");
    }
    let longest = interval.saturating_mul(RUNS_MAX);
    let keep = keep.unwrap_or(KEEP.min(longest));
    if keep > longest {
        let runs_count = keep.as_millis().div_ceil(interval.as_millis());
        bail!(
            "that would keep {runs_count} runs, and at most {RUNS_MAX} are found again: use a longer --rotate or a \
             shorter --keep"
        );
    }
    // Whatever every recorder would fail of is an error at once.
    EvidencePlan::of_host(args.evidence)?;
    let folder = args.output.clone().unwrap_or_else(|| Path::new(RUNS).join(FOLDER));
    let interrupted = interrupts()?;
    let mut settings = Settings {
        interval,
        limits: Limits { keep, keep_bytes: keep_bytes.unwrap_or(u64::MAX) },
        args: recorder_args(args, interval)?,
        are_there_vms: match args.all {
            true => || find_all().iter().any(|vm| vm.vcpus().next().is_some()),
            // A recorder says which of them is missing.
            false => || true,
        },
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    if keep_bytes.is_none() {
        settings.limits.keep_bytes = tenth_of_file_system(&folder)?;
    }
    let room = bytes(settings.limits.keep_bytes);
    let rotation = Rotation::new(&folder, settings)?;
    tell(&format!(
        "recording into {}, a new run each {} s; runs are kept for {} s and up to {room}; Ctrl-C ends it",
        folder.display(),
        interval.as_secs_f64(),
        keep.as_secs_f64()
    ));
    rotation.record(&interrupted, &mut |line| tell(line)).context("cannot watch a recorder")?;
    Ok(0)
}

/// What each recorder is given.
fn recorder_args(args: &AttachArgs, interval: Duration) -> anyhow::Result<Vec<OsString>> {
    let evidence = args.evidence.to_possible_value().context("this evidence has no name")?;
    let longest = interval.saturating_mul(INTERVALS_MAX).saturating_add(Duration::from_secs(60));
    let longest = format!("{}ms", longest.as_millis());
    let mut words: Vec<OsString> = vec!["attach".into(), "--no-report".into()];
    words.extend([
        "--evidence".into(),
        evidence.get_name().into(),
        "--duration".into(),
        longest.into(),
    ]);
    words.extend(args.exits.then(|| "--exits".into()));
    words.extend(args.all.then(|| "--all".into()));
    // As options, so that no name is taken for one.
    words.extend(args.wanted().map(|vm| format!("--vm={vm}").into()));
    Ok(words)
}

fn tenth_of_file_system(folder: &PathBuf) -> anyhow::Result<u64> {
    let data = statvfs(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    Ok((data.blocks() * data.fragment_size() / 10).max(1))
}

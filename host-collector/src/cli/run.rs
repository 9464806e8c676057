//! `vslice run`: from a plan to a run directory and its report.

use super::complete;
use super::exports::Exports;
use super::report::{Form, print};
use super::terminal::{letters, may_draw, shown};
use anyhow::Context;
use clap::Args;
use clap_complete::ArgValueCompleter;
use nix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vslice_core::text::sentence;
use vslice_lab::plan::{AcceleratorSetting, Overrides, Plan, VsockSetting};
use vslice_lab::run::{RunOptions, prepare};
use vslice_record::EvidenceSetting;
use vslice_record::watcher::{BarWatcher, LineWatcher, Watcher};
use vslice_report::summary::{Style, render_full};
use vslice_trace::RunDir;

/// The exit code of a run that was interrupted, as a shell reports SIGINT.
const INTERRUPTED: u8 = 130;

/// The arguments of `vslice run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A built-in plan's name (see `vslice plan list`) or a TOML file
    #[arg(add = ArgValueCompleter::new(complete::plans))]
    plan: String,
    /// Create the run directory here instead of runs/PLAN-SECONDS (since 1970)
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Guest image to boot, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    exports: Exports,
    /// Accelerator that runs the guests
    #[arg(long, help_heading = PLAN_HEADING)]
    accelerator: Option<AcceleratorSetting>,
    /// Transport between vslice and the guests
    #[arg(long, help_heading = PLAN_HEADING)]
    vsock: Option<VsockSetting>,
    /// How the guests' threads are observed; an error if this host does not allow it. The report states
    /// it
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    evidence: EvidenceSetting,
    #[command(flatten, next_help_heading = PLAN_HEADING)]
    overrides: Overrides,
}

const PLAN_HEADING: &str = "Overrides of the plan";

pub(super) fn execute(args: &RunArgs) -> anyhow::Result<u8> {
    let plan = plan_of(args)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&plan.name)?,
    };
    let interrupted = interrupts()?;
    let options = RunOptions {
        output: &output,
        image: &args.image,
        evidence: args.evidence,
        interrupted: &interrupted,
    };
    let conducted = {
        let mut watcher = watcher();
        let prepared = match prepare(&plan, options, watcher.as_mut()) {
            Ok(prepared) => prepared,
            Err(error) if error.is_interrupt() => anyhow::bail!(Interrupted { output: None }),
            Err(error) => anyhow::bail!("nothing was run: {}", sentence(&error)),
        };
        prepared.conduct(watcher.as_mut())
    };
    // Whatever was recorded is reported, also after a run that went wrong, but what went wrong is
    // what the exit code and the last line are about.
    let reported = report(&output, args.form, &args.exports);
    match conducted {
        Ok(()) => reported.map(|()| 0),
        Err(error) if error.is_interrupt() => {
            anyhow::bail!(Interrupted { output: Some(output) })
        }
        Err(error) => {
            let (plan, output) = (&plan.name, output.display());
            let what_is_left = match reported {
                Ok(()) => format!("what was recorded is in {output}"),
                Err(error) => format!("{output} has no report ({})", sentence(error.as_ref())),
            };
            let context = format!("the run of plan '{plan}' ended early; {what_is_left}");
            Err(anyhow::Error::new(error).context(context))
        }
    }
}

/// The run was interrupted; `main` turns this into the exit code that a shell expects.
#[derive(Debug)]
pub(crate) struct Interrupted {
    /// The run directory, if there is one.
    output: Option<PathBuf>,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.output {
            Some(output) => write!(
                formatter,
                "interrupted; what was recorded until then is in {}",
                output.display()
            ),
            None => formatter.write_str("interrupted before anything was recorded"),
        }
    }
}

impl std::error::Error for Interrupted {}

impl Interrupted {
    /// The exit code for it.
    #[must_use]
    pub(crate) fn code(&self) -> u8 {
        INTERRUPTED
    }
}

/// A flag that is set by the signals that mean "end": Ctrl-C, `kill`, and a terminal that goes away
/// unless `nohup` said that it does not matter.
pub(super) fn interrupts() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let hangup = (!ignores_hangup()).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Whether whoever started this process wants it to outlive its terminal, as nohup(1) does: the mask
/// of ignored signals in proc_pid_status(5), of which bit 0 is signal 1, SIGHUP.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

fn plan_of(args: &RunArgs) -> anyhow::Result<Plan> {
    let mut plan = Plan::load(&args.plan)?;
    args.overrides.apply(&mut plan)?;
    plan.accelerator = args.accelerator.unwrap_or(plan.accelerator);
    plan.vsock = args.vsock.unwrap_or(plan.vsock);
    Ok(plan)
}

/// The default run directory, named after the plan and the seconds since 1970, which sort and need no
/// time zone.
pub(super) fn default_output(plan: &str) -> anyhow::Result<PathBuf> {
    let seconds = clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec();
    let mut output = PathBuf::from(format!("runs/{plan}-{seconds}"));
    for number in 2.. {
        if !output.exists() {
            break;
        }
        output = PathBuf::from(format!("runs/{plan}-{seconds}-{number}"));
    }
    Ok(output)
}

pub(super) fn watcher() -> Box<dyn Watcher> {
    let stderr = std::io::stderr();
    let letters = letters();
    if may_draw(&stderr) {
        Box::new(BarWatcher::new(letters))
    } else {
        Box::new(LineWatcher::new(stderr, letters))
    }
}

/// Prints the report and leaves the whole page in the run directory. It is printed first: a full disk ends runs,
/// and then there is no room for it.
pub(super) fn report(output: &Path, form: Form, exports: &Exports) -> anyhow::Result<()> {
    let summary = exports.analyse(output)?;
    let printed = print(&summary, form);
    RunDir::open(output)?.write_json("summary.json", &summary)?;
    let text = output.join("report.txt");
    std::fs::write(&text, render_full(&summary, Style::PLAIN))
        .with_context(|| format!("cannot write {}", text.display()))?;
    let words = shown(&format!("vslice: the run directory is {}", output.display()));
    let _may_be_closed = writeln!(std::io::stderr(), "{words}");
    printed
}

//! `vslice selftest`: known causes are injected on this host, and what vslice says of each is
//! compared with what was done.
//!
//! ```text
//! rig (machine, scripted_process, inject) --> what was done, and when     --.
//!                                                                 |--> truth --> score --> rows
//! perf ----------------.                                          |
//! found --> run.json --+--> analysis --> timeline --> why it left --'
//! ```
//!
//! What vslice knows beside the events takes the way of every attach: the process is found, a manifest
//! is written of it, and the analysis reads that.
//!
//! The truth of a departure comes from who injected it: who came on, what the injector's own log
//! says of that moment, and for locks what the kernel's tracepoint of `futex(2)` says in an instance
//! of tracefs, which shares nothing with the recorder. What vslice concludes never goes into it.
//!
//! An injector proves that its cause happened before that is scored, by the kernel's own counts; and a
//! reason of which there are too few cases is *not tried*, which is not right.

pub mod disks;
mod imitations;
mod injected_machine;
mod machine;
mod observe;
mod process_run;
pub mod rig;
pub mod rows;
pub mod score;
mod setting;
mod text;
mod truth;
pub mod witness;

pub use imitations::imitation_scenarios;
pub use machine::machine_scenarios;
pub use observe::{Departure, ObserveError, Observed, UnknownStack, observe};
pub use rows::{InjectionCount, Row, Verdict, rows};
pub use score::Score;
pub use setting::Setting;
pub use text::render;

use crate::rig::inject::InjectError;
use crate::rig::inject::quota::group::sweep_stale;
use crate::rig::machine::MachineError;
use crate::rig::scripted_process::ScriptedProcessError;
use injected_machine::Scored;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vslice_core::timeline::Reason;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::scratch::ScratchError;
use vslice_lab::plan::LabAccelerator;
use vslice_record::perf::RecordError;
use vslice_report::analyse::AnalyseError;
use vslice_trace::StoreError;
use vslice_trace::host::HostFacts;

/// What a self-test needs to know.
#[derive(Debug, Clone)]
pub struct SelftestConfig {
    /// This program, which is run again as the process.
    pub program: PathBuf,
    /// QEMU; without one there are only those of scripted processes.
    pub qemu: Option<PathBuf>,
    /// What runs the guests, one after the other.
    pub accelerators: Vec<LabAccelerator>,
    /// Where the vCPU threads run, and whoever is in their way.
    pub vcpu_pcpu: PcpuId,
    /// Where everything else runs.
    pub other_pcpu: PcpuId,
    /// How long each cause is injected.
    pub window: Duration,
    /// Is set when the self-test shall end; it does before the next scenario.
    pub interrupted: Arc<AtomicBool>,
    /// What is known of this host.
    pub host: HostFacts,
    /// What cannot be had here though scenarios are there for it.
    pub left_out: Vec<Skipped>,
}

impl SelftestConfig {
    /// The shortest slice of this host's scheduler in whole ticks, where it is known.
    fn slice_ns(&self) -> Option<u64> {
        self.host.slice.as_ref().map(|slice| slice.shortest_ns())
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`SelftestError::Interrupted`].
    pub fn check(&self) -> Result<(), SelftestError> {
        // ATOMICS: relaxed, because the flag stands for itself.
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(SelftestError::Interrupted);
        }
        Ok(())
    }
}

/// What one scenario came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was injected, and where: `rival hog, KVM`.
    pub name: String,
    /// The departures of which the cause is known, by cause and by what vslice says.
    pub score: Score,
    /// Where the thread left without a rule that knows why.
    pub unknown_stacks: Vec<UnknownStack>,
    /// What its injectors made, by their own proof.
    pub made: Vec<InjectionCount>,
    /// The share of the vCPU's pCPU that neither the guest nor the self-test had meanwhile, time that a
    /// hypervisor below the host kept among it.
    pub taken_share: f64,
    /// Why the witness does not know the truth of what was injected, as a sentence without its end; `None`
    /// if it does.
    pub untold: Option<String>,
}

impl Outcome {
    fn new(name: String, scored: Scored) -> Outcome {
        let Scored { score, unknown_stacks, made, taken_share, untold } = scored;
        Outcome { name, score, unknown_stacks, made, taken_share, untold }
    }
}

/// A scenario that could not be had here.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Which.
    pub name: String,
    /// Why.
    pub reason: String,
    /// The reasons that it would have injected.
    pub reasons: Vec<Reason>,
}

/// What only guests can be injected with.
const OF_GUESTS: [Reason; 9] = [
    Reason::BqlFoundByBehaviour,
    Reason::BqlInferred,
    Reason::Halt,
    Reason::Throttle,
    Reason::Timeslice,
    Reason::PreemptWakeup,
    Reason::PreemptRtOrStop,
    Reason::Stopped,
    Reason::Bql,
];

/// Why a self-test ended early.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// The user interrupted it.
    #[error("interrupted; what was injected is undone")]
    Interrupted,
    /// See [`RecordError`].
    #[error(transparent)]
    Record(#[from] RecordError),
    /// See [`ObserveError`].
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// See [`MachineError`].
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// See [`ScriptedProcessError`].
    #[error(transparent)]
    ScriptedProcess(#[from] ScriptedProcessError),
    /// See [`InjectError`].
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// See [`witness::WitnessError`].
    #[error(transparent)]
    Witness(#[from] witness::WitnessError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`AnalyseError`].
    #[error(transparent)]
    Analyse(#[from] AnalyseError),
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// An attach would not find it either.
    #[error("process {pid} is not recognised as a VM")]
    NoVm {
        /// The process that was started to be one.
        pid: Tid,
    },
}

/// Everything, with a word to `progress` before each scenario.
///
/// # Errors
/// [`SelftestError`]; what was injected is undone.
pub fn run(
    config: &SelftestConfig,
    progress: &mut dyn FnMut(&str),
) -> Result<(Vec<Outcome>, Vec<Skipped>), SelftestError> {
    let (mut outcomes, mut skipped) = (Vec::new(), config.left_out.clone());
    // What a self-test that was killed has left.
    let _ = sweep_stale();
    imitation_scenarios(config, progress, &mut outcomes, &mut skipped)?;
    match &config.qemu {
        None => skipped.push(Skipped {
            name: "guests".to_owned(),
            reason: "qemu-system-x86_64 is not installed".to_owned(),
            reasons: OF_GUESTS.to_vec(),
        }),
        Some(qemu) => {
            for accelerator in &config.accelerators {
                let mut setting = Setting { config, qemu, accelerator: *accelerator };
                machine_scenarios(&mut setting, progress, &mut outcomes, &mut skipped)?;
            }
        }
    }
    Ok((outcomes, skipped))
}

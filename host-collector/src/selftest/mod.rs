//! `vslice selftest`: known causes are injected on this host, and what vslice says of each is
//! compared with what was done.
//!
//! ```text
//! rig (machine, puppet, inject) --> what was done, and when     --.
//!                                                                 |--> truth --> score
//! perf --> timeline --> why the vCPU thread left, each time     --'
//! ```
//!
//! The truth of a departure comes from who injected it: who came on, what the injector's own log
//! says of that moment, and for locks what the kernel's tracepoint of `futex(2)` says in an instance
//! of tracefs, which shares nothing with the recorder. What vslice concludes never goes into it.

pub mod disks;
mod machine;
mod observe;
mod puppet;
pub mod score;
mod text;
mod truth;
pub mod witness;

pub use machine::{Stage, machine_scenarios};
pub use observe::{Departure, ObserveError, Observed, UnknownStack, observe};
pub use puppet::puppet_scenarios;
pub use score::Score;
pub use text::render;

use crate::lab::plan::Accelerator;
use crate::perf::RecordError;
use crate::rig::inject::InjectError;
use crate::rig::inject::quota::group::sweep_stale;
use crate::rig::machine::MachineError;
use crate::rig::puppet::PuppetError;
use crate::units::PcpuId;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a self-test needs to know.
#[derive(Debug, Clone)]
pub struct SelftestConfig {
    /// This program, which is run again as the puppet.
    pub program: PathBuf,
    /// QEMU; without one there are only the puppet's causes.
    pub qemu: Option<PathBuf>,
    /// What runs the guests, one after the other.
    pub accelerators: Vec<Accelerator>,
    /// Where the vCPU threads run, and whoever is in their way.
    pub vcpu_pcpu: PcpuId,
    /// Where everything else runs.
    pub other_pcpu: PcpuId,
    /// How long each cause is injected.
    pub window: Duration,
    /// Is set when the self-test shall end; it does before the next scenario.
    pub interrupted: Arc<AtomicBool>,
    /// The shortest slice of this host's scheduler in whole ticks, where it is known.
    pub slice_ns: Option<u64>,
}

impl SelftestConfig {
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
}

/// A scenario that could not be had here.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Which.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Why a self-test ended early.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// It was told to end.
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
    /// See [`PuppetError`].
    #[error(transparent)]
    Puppet(#[from] PuppetError),
    /// See [`InjectError`].
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// See [`witness::WitnessError`].
    #[error(transparent)]
    Witness(#[from] witness::WitnessError),
}

/// Everything, with a word to `progress` before each scenario.
///
/// # Errors
/// [`SelftestError`]; what was injected is undone.
pub fn run(
    config: &SelftestConfig,
    progress: &mut dyn FnMut(&str),
) -> Result<(Vec<Outcome>, Vec<Skipped>), SelftestError> {
    let (mut outcomes, mut skipped) = (Vec::new(), Vec::new());
    // What a self-test that was killed has left.
    let _ = sweep_stale();
    puppet_scenarios(config, progress, &mut outcomes)?;
    match &config.qemu {
        None => skipped.push(Skipped {
            name: "guests".to_owned(),
            reason: "there is no qemu-system-x86_64".to_owned(),
        }),
        Some(qemu) => {
            for accelerator in &config.accelerators {
                let mut stage = Stage { config, qemu, accelerator: *accelerator };
                machine_scenarios(&mut stage, progress, &mut outcomes, &mut skipped)?;
            }
        }
    }
    Ok((outcomes, skipped))
}

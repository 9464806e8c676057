//! `vslice selftest-process`: what the self-test starts, and nobody else.

use clap::Args;
use vslice_selftest::rig::scripted_process;

/// The arguments of `vslice selftest-process`.
#[derive(Debug, Args)]
pub(crate) struct ScriptedProcessArgs {
    /// What to do, as JSON
    orders: String,
}

pub(super) fn execute(args: &ScriptedProcessArgs) -> anyhow::Result<u8> {
    scripted_process::run(&serde_json::from_str(&args.orders)?, &mut std::io::stdout().lock())?;
    Ok(0)
}

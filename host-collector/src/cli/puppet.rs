//! `vslice selftest-puppet`: what the self-test starts, and nobody else.

use clap::Args;
use vslice_selftest::rig::puppet;

/// The arguments of `vslice selftest-puppet`.
#[derive(Debug, Args)]
pub(crate) struct PuppetArgs {
    /// What to do, as JSON
    orders: String,
}

pub(super) fn execute(args: &PuppetArgs) -> anyhow::Result<u8> {
    puppet::run(&serde_json::from_str(&args.orders)?, &mut std::io::stdout().lock())?;
    Ok(0)
}

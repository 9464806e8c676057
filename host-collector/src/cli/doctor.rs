//! `vslice doctor`: what this host offers.

use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice::lab::doctor::{Status, examine, render};

/// The arguments of `vslice doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Examine with this guest image, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Exits with 1 if something is missing without which nothing can be recorded.
pub(super) fn execute(args: &DoctorArgs) -> anyhow::Result<u8> {
    let findings = examine(&args.image);
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &findings)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render(&findings))?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.status == Status::Missing)))
}

//! `vslice doctor`: what this host offers.

use super::attach::choose;
use super::terminal::shown;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice::lab::doctor::{examine, render};
use vslice::lab::doctor_vm::examine_vm;
use vslice::lab::finding::Status;
use vslice::ps::Listing;

/// The arguments of `vslice doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Examine with this guest image, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// Examine this VM instead of the host: by name, process id or QMP socket (see `vslice ps`)
    #[arg(long, value_name = "VM")]
    vm: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Exits with 1 if something is missing without which nothing can be recorded.
pub(super) fn execute(args: &DoctorArgs) -> anyhow::Result<u8> {
    let findings = match &args.vm {
        Some(wanted) => examine_vm(&choose(wanted, &Listing::of_this_host().vms)?),
        None => examine(&args.image),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &findings)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", shown(&render(&findings)))?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.status == Status::Missing)))
}

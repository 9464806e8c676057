//! Writes a run of any size, or says whether a summary of it is right.
//!
//! ```text
//! cargo run --profile dist -p vslice-tests --example large_run -- RUN --events 100000000 --requests 10000000
//! vslice report RUN --json > RUN.json
//! cargo run --profile dist -p vslice-tests --example large_run -- RUN --events 100000000 --requests 10000000 --check RUN.json
//! ```
#![expect(clippy::print_stdout, reason = "it is a program")]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::path::PathBuf;
use vslice_tests::large::{Asked, write};

/// Acts out a host, and writes what would have been recorded there.
#[derive(Debug, Parser)]
struct Options {
    /// The run's directory, which must not be there yet.
    run: PathBuf,
    /// So many events or somewhat more.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// So many requests.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Virtual machines; each has five pCPUs of its own.
    #[arg(long, default_value_t = 8)]
    vms: u32,
    /// The host's pCPUs.
    #[arg(long, default_value_t = 64)]
    pcpus: u32,
    /// Another number gives another run of that size.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The output of `vslice report --json`: whether it is what it has to be.
    #[arg(long, value_name = "SUMMARY")]
    check: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Options { run, events, requests, vms, pcpus, seed, check } = Options::parse();
    ensure!(vms > 0 && vms <= pcpus / 5, "{vms} VMs need {} pCPUs", vms * 5);
    let asked = Asked { events, requests, vms, pcpus, seed };
    let Some(check) = check else {
        let expected =
            write(&run, &asked).with_context(|| format!("cannot write {}", run.display()))?;
        println!("{} events, {} requests", expected.events, expected.latencies.count());
        return Ok(());
    };
    // What it has to be is made once more, into a directory that goes.
    let scratch = tempfile::tempdir()?;
    let expected = write(&scratch.path().join("run"), &asked)?;
    let summary =
        std::fs::read(&check).with_context(|| format!("cannot read {}", check.display()))?;
    let differences = expected.differences(&serde_json::from_slice(&summary)?);
    ensure!(differences.is_empty(), "otherwise than acted out:\n{}", differences.join("\n"));
    println!("right: {} requests, {} vCPUs", expected.latencies.count(), expected.vcpus.len());
    Ok(())
}

//! `vslice selftest`: how often vslice is right on this host.

use anyhow::Context;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::time::Duration;
use vslice_core::timeline::Reason;
use vslice_host::host;
use vslice_lab::experiment::alternating;
use vslice_lab::plan::LabAccelerator;
use vslice_lab::tools;
use vslice_selftest::disks::{DiskCount, render_disks};
use vslice_selftest::rig::frontend::Frontend;
use vslice_selftest::rig::machine::choose_accelerator;
use vslice_selftest::{Outcome, Row, Score, SelftestConfig, Setting, Skipped, render, rows, run};
use vslice_spec::duration;
use vslice_trace::host::HostDisks;

/// The arguments of `vslice selftest`.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Accelerator for the boot-sector guests into which causes are injected
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    accelerator: Choice,
    /// How long each cause is injected, such as 1.5s
    #[arg(long, value_name = "TIME", default_value = "1.5s", value_parser = duration::parse)]
    window: Duration,
    /// Instead of injecting causes, count the sleeps on QEMU's big lock with each kind of disk, by vslice
    /// and, at the same time, from a separate tracefs instance
    #[arg(long)]
    disks: bool,
    /// How often each kind of disk is counted, alternating, to get confidence intervals
    #[arg(long, value_name = "COUNT", requires = "disks", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Print scenarios and confusion matrix as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// KVM if it runs a boot sector here, otherwise TCG
    Auto,
    /// KVM only
    Kvm,
    /// TCG only
    Tcg,
    /// TCG, and KVM if it runs a boot sector here
    Both,
}

/// Exits with 1 if vslice misses a target, or if there are too few cases to tell.
pub(super) fn execute(args: &SelftestArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(
        (Duration::from_millis(200)..=Duration::from_secs(60)).contains(&args.window),
        "--window must be between 0.2 and 60 seconds; it is {}",
        args.window.as_secs_f64()
    );
    let pcpus: Vec<_> = vslice_host::host::online_pcpus()?.iter().collect();
    let [other_pcpu, .., vcpu_pcpu] = pcpus[..] else {
        anyhow::bail!("a self-test needs two pCPUs: one for the vCPU, one for everything else");
    };
    let qemu = tools::find(tools::QEMU);
    let host = host::facts(qemu.as_deref().unwrap_or("".as_ref()), HostDisks::default());
    let (accelerators, left_out) = accelerators(args.accelerator, qemu.as_deref());
    let config = SelftestConfig {
        program: std::env::current_exe().context("cannot find the executable file of vslice")?,
        accelerators,
        qemu,
        vcpu_pcpu,
        other_pcpu,
        window: args.window,
        interrupted: super::run::interrupts()?,
        host,
        left_out,
    };
    if args.disks {
        return count_disks(&config, args.repeat, args.json);
    }
    let mut progress = |name: &str| drop(writeln!(std::io::stderr(), "vslice: {name}"));
    let (outcomes, skipped) = run(&config, &mut progress)?;
    let mut total = Score::default();
    outcomes.iter().for_each(|outcome| total.merge(&outcome.score));
    let rows = rows(&outcomes, &skipped, &total);
    let shortfalls = total.shortfalls();
    print(args.json, &outcomes, &skipped, &rows, &shortfalls)?;
    Ok(u8::from(!shortfalls.is_empty() || !rows.iter().all(Row::is_fine)))
}

fn count_disks(config: &SelftestConfig, repeat: u16, json: bool) -> anyhow::Result<u8> {
    let qemu = config.qemu.as_deref().context("qemu-system-x86_64 is not installed")?;
    let mut counts = Vec::new();
    for accelerator in &config.accelerators {
        let setting = Setting { config, qemu, accelerator: *accelerator };
        // A B B A, so that what drifts in the host favours none.
        let order = alternating(Frontend::ALL.len(), repeat);
        for (turn, (place, _)) in order.iter().enumerate() {
            config.check()?;
            let (frontend, all) = (Frontend::ALL[*place], order.len());
            drop(writeln!(std::io::stderr(), "vslice: {} of {all}: {}", turn + 1, frontend.name()));
            counts.push(setting.count(frontend)?);
        }
    }
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({ "schema": "vslice.selftest-disks/1", "disks": counts });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render_disks(&counts))?;
    }
    Ok(u8::from(!counts.iter().all(DiskCount::agrees)))
}

/// The accelerators to test, and the scenarios that are left out because of that choice.
fn accelerators(
    choice: Choice,
    qemu: Option<&std::path::Path>,
) -> (Vec<LabAccelerator>, Vec<Skipped>) {
    let without_kvm = |reason: String| Skipped {
        name: String::from("guests under KVM"),
        reason,
        reasons: vec![Reason::Halt],
    };
    let Some(qemu) = qemu else { return (Vec::new(), Vec::new()) };
    match choice {
        Choice::Kvm => (vec![LabAccelerator::Kvm], Vec::new()),
        Choice::Tcg => {
            (vec![LabAccelerator::Tcg], vec![without_kvm("only TCG was asked for".to_owned())])
        }
        Choice::Auto | Choice::Both => {
            let chosen = choose_accelerator(qemu);
            drop(writeln!(std::io::stderr(), "vslice: {}", chosen.reason));
            match (choice, chosen.accelerator) {
                (Choice::Both, LabAccelerator::Kvm) => {
                    (vec![LabAccelerator::Kvm, LabAccelerator::Tcg], Vec::new())
                }
                (_, LabAccelerator::Kvm) => (vec![LabAccelerator::Kvm], Vec::new()),
                (_, LabAccelerator::Tcg) => {
                    (vec![LabAccelerator::Tcg], vec![without_kvm(chosen.reason)])
                }
            }
        }
    }
}

fn print(
    json: bool,
    outcomes: &[Outcome],
    skipped: &[Skipped],
    rows: &[Row],
    shortfalls: &[String],
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({
            "schema": "vslice.selftest/2",
            "scenarios": outcomes,
            "skipped": skipped,
            "rows": rows,
            "shortfalls": shortfalls,
        });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render(outcomes, skipped))?;
    }
    Ok(())
}

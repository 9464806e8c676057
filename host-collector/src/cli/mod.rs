//! The command line: what it understands, and one file for each command.

pub(crate) mod attach;
pub(crate) mod compare;
pub(crate) mod doctor;
#[cfg(test)]
mod documents_tests;
pub(crate) mod emit;
pub(crate) mod experiment;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod puppet;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod selftest;
pub(crate) mod terminal;
pub(crate) mod vm;

use clap::{Parser, Subcommand};

/// Says, for every slow request of a guest, what the host was doing to its vCPU, and who did it.
///
/// A run boots guests as a plan says, loads their vCPUs with hogs, reads 4 KiB blocks by O_DIRECT
/// and records every request in the guest and every scheduling event on the host. It ends in a run
/// directory; reports are made from that alone, here or elsewhere, now or later.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  vslice doctor                         what this host offers, and what is missing
  vslice run demo                       two guests on two pCPUs, about a minute
  vslice run demo --iothread true       the same with the disk in an iothread
  vslice run demo --bus ide --json      the summary as JSON
  vslice experiment quick               disks with and without an iothread, in turn
  vslice attach web1 --duration 10s     a VM that is there already (see vslice ps)
  vslice plan show seed > my.toml       a plan to start from
  vslice report runs/demo-1795471866    the report of a run once more; without a name of the latest
  vslice report runs                    what each run in a folder came to
  vslice compare main-loop iothread     repeats of two conditions: what differs, and how surely";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a plan: boot its guests, record, report
    Run(run::RunArgs),
    /// Run a plan under several conditions in turn, each several times
    Experiment(experiment::ExperimentArgs),
    /// Print the report of a run directory, or list the runs in a folder
    Report(report::ReportArgs),
    /// Set runs of two conditions against each other, with what their repeats scatter
    Compare(compare::CompareArgs),
    /// Record VMs that are there already, changing nothing of them, and report
    Attach(attach::AttachArgs),
    /// List the virtual machines of this host: threads, pCPUs, disks, and placements that cost latency
    Ps(ps::PsArgs),
    /// Say what this host offers for vslice, what is missing, and how to get it
    Doctor(doctor::DoctorArgs),
    /// List the built-in plans, print one as a start for your own, or make one of a libvirt domain
    Plan(plan::PlanArgs),
    /// Print a plan's VMs as QEMU command lines or libvirt domains, for any QEMU since 1.4
    Emit(emit::EmitArgs),
    /// Inject known causes on this host and count how often vslice names them right
    Selftest(selftest::SelftestArgs),
    /// Block in ways that are known; a part of the self-test
    #[command(hide = true)]
    SelftestPuppet(puppet::PuppetArgs),
}

impl Cli {
    /// Does what the command says; the exit code is the process's.
    ///
    /// # Errors
    /// A chain of sentences for the person who gave the command.
    pub(crate) fn execute(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Run(args) => run::execute(&args),
            Command::Experiment(args) => experiment::execute(&args),
            Command::Report(args) => report::execute(&args),
            Command::Compare(args) => compare::execute(&args),
            Command::Attach(args) => attach::execute(&args),
            Command::Ps(args) => ps::execute(&args),
            Command::Doctor(args) => doctor::execute(&args),
            Command::Plan(args) => plan::execute(&args),
            Command::Emit(args) => emit::execute(&args),
            Command::Selftest(args) => selftest::execute(&args),
            Command::SelftestPuppet(args) => puppet::execute(&args),
        }
    }
}

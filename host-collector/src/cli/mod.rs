//! The command line: what it understands, and one file for each command.

mod at;
pub(crate) mod attach;
pub(crate) mod compare;
mod complete;
pub(crate) mod doctor;
#[cfg(test)]
mod documents_tests;
pub(crate) mod emit;
pub(crate) mod experiment;
mod exports;
pub(crate) mod list;
mod local_time;
mod memory;
mod metrics_to;
mod output_file;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod report;
mod rotation;
pub(crate) mod run;
pub(crate) mod scripted_process;
pub(crate) mod selftest;
pub(crate) mod terminal;
pub(crate) mod top;
pub(crate) mod vm;

use clap::{Parser, Subcommand};

/// Explains a guest's slow requests: what the host was doing to its vCPU, and who did it.
///
/// A run boots the guests of a plan, keeps their vCPUs busy with hogs, reads 4 KiB blocks with O_DIRECT,
/// and records every request in the guest and every scheduling event on the host. All of it goes into a
/// run directory. A report needs nothing else, so it can be made later or on another machine.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The command to execute.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  vslice doctor                         what vslice can do here, and what is missing
  vslice run demo                       two guests on two pCPUs, about a minute
  vslice run demo --iothread true       the same, with the disk in an iothread
  vslice run demo --bus ide --json      the summary as JSON
  vslice experiment quick               disks with and without an iothread, alternating
  vslice attach web1 --duration 10s     a VM that is already running (see vslice ps)
  vslice top                            the VMs of this host, live
  vslice plan show seed > my.toml       a plan to start from
  vslice report runs/demo-1795471866    the report of a run; without a name, the latest
  vslice list                           the runs below runs/, with the result of each
  vslice compare main-loop iothread     what differs between two conditions, and how certainly";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a plan: boot its guests, record them, and report
    Run(run::RunArgs),
    /// Run a plan under several conditions, alternating, each several times
    Experiment(experiment::ExperimentArgs),
    /// Print the report of a run directory
    Report(report::ReportArgs),
    /// List the runs in a folder, with the result of each
    List(list::ListArgs),
    /// Compare runs of two conditions, judged by the scatter between repeats
    Compare(compare::CompareArgs),
    /// Record VMs that are already running, without changing them, and report
    Attach(attach::AttachArgs),
    /// Look at what the host does to VMs, live, and who does it
    Top(top::TopArgs),
    /// List this host's virtual machines: threads, pCPUs, disks, and placements that cost latency
    Ps(ps::PsArgs),
    /// Check what vslice can do on this host, what is missing, and how to get it
    Doctor(doctor::DoctorArgs),
    /// List the built-in plans, print one to start from, or convert a libvirt domain to a plan
    Plan(plan::PlanArgs),
    /// Print a plan's VMs as QEMU command lines or libvirt domains, for any QEMU since 1.4
    Emit(emit::EmitArgs),
    /// Inject known causes on this host and count how often vslice identifies them
    Selftest(selftest::SelftestArgs),
    /// Block a thread for known reasons; internal to the self-test
    #[command(hide = true)]
    SelftestProcess(scripted_process::ScriptedProcessArgs),
}

impl Cli {
    /// Executes the command and returns the exit code of the process.
    ///
    /// # Errors
    /// Fails with a chain of sentences for the user.
    pub(crate) fn execute(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Run(args) => run::execute(&args),
            Command::Experiment(args) => experiment::execute(&args),
            Command::Report(args) => report::execute(&args),
            Command::List(args) => list::execute(&args),
            Command::Compare(args) => compare::execute(&args),
            Command::Attach(args) => attach::execute(&args),
            Command::Top(args) => top::execute(&args),
            Command::Ps(args) => ps::execute(&args),
            Command::Doctor(args) => doctor::execute(&args),
            Command::Plan(args) => plan::execute(&args),
            Command::Emit(args) => emit::execute(&args),
            Command::Selftest(args) => selftest::execute(&args),
            Command::SelftestProcess(args) => scripted_process::execute(&args),
        }
    }
}

//! `vslice-agent`: the guest side of vslice.
//!
//! ```text
//! main        the command line, and the exit code
//! init        the agent as a guest's first process; modules are what it loads
//! endpoint    where the collector is, and the way to it
//! session     the conversation that vslice-wire draws, in one thread
//! link        frames in and out, never waiting; outbox is what waits to be sent
//! stamper     on which vCPU the control thread is, and what it stamps pongs with
//! streaming   from the reader's ring to the outbox
//! observing   the same of what the guest's kernel does with its disks
//! load        hogs and reader, as vslice-workload has them
//! solo        the agent alone: when its vCPUs were taken away, told by the guest itself
//! ```

mod endpoint;
mod guest;
mod host_clock;
mod init;
mod link;
mod load;
mod modules;
mod observing;
mod outbox;
mod session;
mod solo;
mod stamper;
mod streaming;
mod uptime;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use endpoint::Endpoint;
use signal_hook::consts::TERM_SIGNALS;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The guest side of vslice: runs the load that a collector on the host asks for, and streams every
/// request to it.
///
/// As a guest's init (process 1) it needs no arguments: it reads `vslice.connect=...` from the kernel
/// command line, and powers off the guest at the end.
#[derive(Debug, Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " ", vslice_wire::protocol_mark!()))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one collector: run its plan, and end when the collector says so or disconnects
    Run(Run),
    /// Measure from inside the guest, without a collector, when and for how long its vCPUs are taken away
    Solo(solo::Solo),
}

#[derive(Debug, Args)]
struct Run {
    /// Where the collector listens: vsock:CID:PORT (the host is CID 2), unix:PATH, or virtio:NAME
    /// for a virtio-serial port
    #[arg(long, value_name = "ENDPOINT")]
    connect: Endpoint,
    /// How long to keep trying to connect, such as 30s or 1m
    #[arg(
        long,
        alias = "connect-timeout-s",
        value_name = "TIME",
        default_value = "30s",
        value_parser = vslice_spec::duration::parse
    )]
    connect_timeout: Duration,
}

fn main() -> ExitCode {
    if init::is_init(std::env::args_os().nth(1).as_deref()) {
        init::run();
        return ExitCode::FAILURE;
    }
    let outcome = match Cli::parse().command {
        Command::Run(run) => serve(&run),
        Command::Solo(solo) => alone(&solo),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "vslice-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(run: &Run) -> anyhow::Result<()> {
    let socket = run.connect.connect(run.connect_timeout)?;
    // From here on there may be an I/O scheduler to put back, which a plain death would not do.
    let interrupted = interrupted_by_signals()?;
    session::run(socket, &interrupted)?;
    Ok(())
}

fn alone(solo: &solo::Solo) -> anyhow::Result<()> {
    // Whoever ends it early wants to see what was measured.
    let interrupted = interrupted_by_signals()?;
    let is_terminal = std::io::stderr().is_terminal();
    let mut progress = |line: &str| {
        if is_terminal {
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    };
    let page = solo::run(solo, &interrupted, &mut progress);
    progress("");
    std::io::stdout().write_all(page?.as_bytes()).context("cannot print the report")
}

/// A flag that a request to end raises.
fn interrupted_by_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for &signal in TERM_SIGNALS {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("cannot install the signal handlers")?;
    }
    Ok(interrupted)
}

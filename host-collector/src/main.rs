//! `vslice`: the collector's command line.

mod cli;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our output has had enough of it, as in `vslice report RUN | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone as well there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "vslice: {error:#}"));
            let interrupted = error.downcast_ref::<cli::run::Interrupted>();
            interrupted.map_or(ExitCode::FAILURE, |error| ExitCode::from(error.code()))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

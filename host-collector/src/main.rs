//! `vslice`: the collector's command line.

mod cli;
mod ps;
mod rotate;
mod top;

use clap::{CommandFactory, Parser};
use cli::terminal::shown;
use std::io::Write;
use std::process::ExitCode;
use vslice_core::text::sentence;

fn main() -> ExitCode {
    // Where a shell asks what it may complete, that is all there is to do.
    clap_complete::CompleteEnv::with_factory(cli::Cli::command).complete();
    match cli::Cli::parse().execute() {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our output has had enough of it, as in `vslice report RUN | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone as well there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "vslice: {}", shown(&sentence(error.as_ref()))));
            let interrupted = error.downcast_ref::<cli::run::Interrupted>();
            interrupted.map_or(ExitCode::FAILURE, |error| ExitCode::from(error.code()))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = match error.downcast_ref::<serde_json::Error>() {
        Some(error) => error.io_error_kind(),
        None => error.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
    };
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

//! `vslice plan`: the plans that vslice brings along.

use clap::{Args, Subcommand};
use std::io::Write;
use vslice::lab::plan::{BUILT_IN, Plan};

/// The arguments of `vslice plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the built-in plans
    List,
    /// Print a built-in plan's TOML
    Show {
        /// Its name
        name: String,
    },
}

pub(super) fn execute(args: &PlanArgs) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::List => {
            for (name, toml) in BUILT_IN {
                let plan = Plan::parse(name, toml)?;
                writeln!(out, "{name:8} {}", plan.description)?;
            }
        }
        Action::Show { name } => {
            let Some((_, toml)) = BUILT_IN.iter().find(|(built_in, _)| built_in == name) else {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                anyhow::bail!("there is no built-in plan '{name}', only {}", names.join(" and "));
            };
            write!(out, "{toml}")?;
        }
    }
    Ok(0)
}

//! `vslice plan`: the plans that vslice brings along, and those that it makes of libvirt's domains.

use anyhow::Context;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use vslice_lab::emit::from_xml;
use vslice_lab::plan::{BUILT_IN, Plan};

/// The arguments of `vslice plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    action: Action,
    /// Print JSON: all plans in full, or the named one
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the built-in plans
    List,
    /// Print a built-in plan's TOML
    Show {
        /// The plan's name
        name: String,
    },
    /// Print a plan made from the XML of a libvirt domain, as `virsh dumpxml` prints it
    FromXml {
        /// File with the domain's XML, or with libvirt's state of a running one
        file: PathBuf,
        /// The disk that the plan has, by its name in the domain; otherwise the first that a plan can have
        #[arg(long, value_name = "vda")]
        disk: Option<String>,
    },
}

pub(super) fn execute(args: &PlanArgs) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::List => {
            let plans = BUILT_IN.iter().map(|(name, toml)| Plan::parse(name, toml));
            let plans = plans.collect::<Result<Vec<Plan>, _>>()?;
            if args.json {
                serde_json::to_writer_pretty(&mut out, &plans)?;
                writeln!(out)?;
            } else {
                for plan in plans {
                    writeln!(out, "{:8} {}", plan.name, plan.description)?;
                }
            }
        }
        Action::Show { name } => {
            let Some((_, toml)) = BUILT_IN.iter().find(|(built_in, _)| built_in == name) else {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                anyhow::bail!(
                    "there is no built-in plan '{name}'; the built-in plans are {}",
                    names.join(" and ")
                );
            };
            if args.json {
                serde_json::to_writer_pretty(&mut out, &Plan::parse(name, toml)?)?;
                writeln!(out)?;
            } else {
                write!(out, "{toml}")?;
            }
        }
        Action::FromXml { file, disk } => {
            let shown = file.display().to_string();
            let bytes =
                std::fs::read(file).with_context(|| format!("cannot make a plan from {shown}"))?;
            let xml = from_xml::text_of(&shown, &bytes)?;
            let host = vslice_host::host::online_pcpus().ok();
            let read = from_xml::read(&shown, &xml, host.as_ref(), disk.as_deref())?;
            if args.json {
                serde_json::to_writer_pretty(&mut out, &read.plan)?;
                writeln!(out)?;
                // JSON has no comments, and what was assumed or lost has to be told all the same.
                let mut log = std::io::stderr().lock();
                for comment in read.toml.lines().filter_map(|line| line.strip_prefix("# ")) {
                    writeln!(log, "{comment}")?;
                }
            } else {
                write!(out, "{}", read.toml)?;
            }
        }
    }
    Ok(0)
}

//! `vslice emit`: a plan's VMs for others to start, as QEMU command lines or libvirt domains.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use vslice_host::host::qemu_version;
use vslice_lab::emit::versions::QemuVersion;
use vslice_lab::emit::{Emission, EmitFiles, libvirt, qemu};
use vslice_lab::plan::{AcceleratorSetting, Overrides, Plan, VsockSetting};
use vslice_lab::tools;

/// The arguments of `vslice emit`.
#[derive(Debug, Args)]
pub(crate) struct EmitArgs {
    /// A built-in plan's name (see `vslice plan list`) or a TOML file
    plan: String,
    /// Emit only this VM of the plan
    #[arg(value_name = "VM")]
    word: Option<String>,
    /// Same as the argument VM
    #[arg(long, value_name = "VM", conflicts_with = "word")]
    vm: Option<String>,
    /// QEMU version to emit for, 1.4 or later, such as 2.0 [default: the installed one]
    #[arg(long, value_name = "VERSION")]
    qemu_version: Option<QemuVersion>,
    /// Output format
    #[arg(long, default_value = "qemu")]
    format: Format,
    /// Kernel to boot; without it the VM boots from its disk
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initramfs for the kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initramfs: Option<PathBuf>,
    /// The VM's raw image [default: /var/lib/libvirt/images/NAME.img]
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Directory for the VM's sockets and console log
    #[arg(long, value_name = "DIR", default_value = "/run")]
    sockets: PathBuf,
    /// Accelerator that runs the guests
    #[arg(long, help_heading = PLAN_HEADING)]
    accelerator: Option<AcceleratorSetting>,
    /// Transport between vslice and the guests
    #[arg(long, help_heading = PLAN_HEADING)]
    vsock: Option<VsockSetting>,
    #[command(flatten, next_help_heading = PLAN_HEADING)]
    overrides: Overrides,
}

const PLAN_HEADING: &str = "Overrides of the plan";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A QEMU command line
    Qemu,
    /// A libvirt domain
    Libvirt,
}

pub(super) fn execute(args: &EmitArgs) -> anyhow::Result<u8> {
    // What is emitted is for others to run, who may have no use for a reader.
    let mut plan = Plan::load_parts(&args.plan)?;
    args.overrides.apply_parts(&mut plan)?;
    plan.accelerator = args.accelerator.unwrap_or(plan.accelerator);
    plan.vsock = args.vsock.unwrap_or(plan.vsock);
    let version = match args.qemu_version {
        Some(version) => version,
        None => installed()?,
    };
    let mut texts = Vec::new();
    for vm_index in chosen(args, &plan)? {
        let files = files(args, &plan.vms[vm_index].name);
        let emission = Emission { plan: &plan, vm_index, version, files: &files };
        texts.push(match args.format {
            Format::Qemu => qemu::script(&emission)?,
            Format::Libvirt => libvirt::domain(&emission)?,
        });
    }
    write!(std::io::stdout().lock(), "{}", texts.join("\n"))?;
    Ok(0)
}

/// The indices of the requested VMs.
fn chosen(args: &EmitArgs, plan: &Plan) -> anyhow::Result<Vec<usize>> {
    let names: Vec<&str> = plan.vms.iter().map(|vm| vm.name.as_str()).collect();
    let shown = names.join(", ");
    if let Some(name) = args.word.as_ref().or(args.vm.as_ref()) {
        let index = names.iter().position(|vm| vm == name);
        let index = index
            .with_context(|| format!("plan '{}' has no vm '{name}', it has {shown}", plan.name))?;
        return Ok(vec![index]);
    }
    if names.len() > 1 && args.format == Format::Libvirt {
        bail!("a domain describes one VM: choose it with --vm ({shown})");
    }
    if names.len() > 1 && args.disk.is_some() {
        bail!("--disk is the image of one VM: choose it with --vm ({shown})");
    }
    Ok((0..names.len()).collect())
}

fn files(args: &EmitArgs, name: &str) -> EmitFiles {
    let usual = EmitFiles::of_vm(name);
    EmitFiles {
        kernel: args.kernel.clone(),
        initramfs: args.initramfs.clone(),
        disk: args.disk.clone().unwrap_or(usual.disk),
        sockets: args.sockets.clone(),
    }
}

fn installed() -> anyhow::Result<QemuVersion> {
    let missing =
        || format!("{} is not installed: name a version with --qemu-version", tools::QEMU);
    let qemu = tools::find(tools::QEMU).with_context(missing)?;
    let banner = qemu_version(&qemu).map_err(anyhow::Error::msg)?;
    Ok(QemuVersion::from_banner(&banner)?)
}

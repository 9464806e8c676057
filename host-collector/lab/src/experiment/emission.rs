//! Each condition for whoever wants to start its VMs by other means: QEMU's command line and libvirt's
//! domain, for the QEMU that is installed.

use super::error::ExperimentError;
use crate::emit::versions::QemuVersion;
use crate::emit::{Emission, EmitError, EmitFiles, libvirt, qemu};
use crate::plan::Plan;
use std::fs;
use std::path::Path;

/// Writes `VM.qemu` and `VM.xml` for each VM of a cell's plan into its directory; of what a form cannot say,
/// the sentence that says so.
pub(super) fn write(
    plan: &Plan,
    version: QemuVersion,
    directory: &Path,
) -> Result<(), ExperimentError> {
    let failed =
        |doing, path: &Path, source| ExperimentError::Io { doing, path: path.to_owned(), source };
    fs::create_dir_all(directory)
        .map_err(|source| failed("create the directory", directory, source))?;
    for (vm_index, vm) in plan.vms.iter().enumerate() {
        let files = EmitFiles::of_vm(&vm.name);
        let emission = Emission { plan, vm_index, version, files: &files };
        for (ending, text) in
            [("qemu", qemu::script(&emission)), ("xml", libvirt::domain(&emission))]
        {
            let path = directory.join(format!("{}.{ending}", vm.name));
            fs::write(&path, text.unwrap_or_else(|error| refusal(ending, &error)))
                .map_err(|source| failed("write", &path, source))?;
        }
    }
    Ok(())
}

fn refusal(ending: &str, error: &EmitError) -> String {
    match ending {
        "xml" => format!("<!-- {} -->\n", error.to_string().replace("--", "- -")),
        _ => format!("# {error}\n"),
    }
}
